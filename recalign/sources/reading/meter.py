"""A progress bar for files that take a while: megabytes of the file, and records a second."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import BinaryIO

from recalign import console

LARGE = 64 << 20
"""Bytes of a file from which on a bar is shown."""

_shown = threading.Lock()  # of several files that are read at once, one has the bar


def metered(parts: Iterator[bytes], raw: BinaryIO) -> Iterator[bytes]:
    """Hand on the blocks of a file, and show how far it is read if it is large.

    The bar begins at the second block: whoever takes only the first one looks at the header.

    Args:
        parts: blocks of the file's text.
        raw: the file itself, whose position tells how far it is read.
    """
    size = os.fstat(raw.fileno()).st_size
    first = next(parts, None)
    if first is None:
        return
    yield first
    if size < LARGE or not _shown.acquire(blocking=False):
        yield from parts
        return
    try:
        lines, begun, done = first.count(b"\n"), time.monotonic(), 0
        name = os.path.basename(str(raw.name))
        with console.progress(f"{name} (MB)", size >> 20) as advance:
            for part in parts:
                yield part
                lines += part.count(b"\n")
                now = raw.tell() >> 20
                rate = lines / max(time.monotonic() - begun, 1e-9)
                advance(now - done, note=f"{lines:,} records, {rate:,.0f} a second")
                done = now
            advance((size >> 20) - done)
    finally:
        _shown.release()
