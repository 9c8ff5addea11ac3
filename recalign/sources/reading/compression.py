"""Compressed files, known by how they begin, whatever their suffix: gzip and zstd, decompressed as a stream."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
SUFFIXES = (".gz", ".zst", ".zstd")
DAMAGED = (OSError, EOFError, zlib.error)
"""What reading raises where a file, or what is compressed in it, cannot be read."""


def compression(file: Path) -> str | None:
    """Return how a file is compressed, `gzip` or `zstd`, or None.

    Args:
        file: that exists.
    """
    with file.open("rb") as stream:
        return _compression(stream)


def bare(name: str) -> str:
    """Return a file's name without the suffix of its compression: `meta.json` of `meta.json.gz`."""
    return next((name[: -len(end)] for end in SUFFIXES if name.lower().endswith(end)), name)


@contextlib.contextmanager
def decompressed(stream: BinaryIO) -> Iterator[Any]:
    """Open a stream of what a file holds, decompressed as it is read; several members that follow each other are one.

    Args:
        stream: of the file, at its beginning.
    """
    found = _compression(stream)
    stream.seek(0)
    if found == "gzip":
        with gzip.GzipFile(fileobj=stream, mode="rb") as inner:
            yield inner
    elif found == "zstd":
        import pyarrow as pa

        with pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd") as inner:
            yield inner
    else:
        yield stream


def _compression(stream: BinaryIO) -> str | None:
    start = stream.read(4)
    return next((name for mark, name in COMPRESSIONS.items() if start.startswith(mark)), None)
