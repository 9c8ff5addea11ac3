"""Compressed files, known by how they begin, whatever their suffix: gzip and zstd, unpacked as a stream."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

PACKINGS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
SUFFIXES = (".gz", ".zst", ".zstd")
DAMAGED = (OSError, EOFError, zlib.error)
"""What reading raises where a file, or what is packed in it, cannot be read."""


def packing(file: Path) -> str | None:
    """Return how a file is packed, `gzip` or `zstd`, or None.

    Args:
        file: that exists.
    """
    with file.open("rb") as stream:
        return _packing(stream)


def bare(name: str) -> str:
    """Return a file's name without the suffix of its packing: `meta.json` of `meta.json.gz`."""
    return next((name[: -len(end)] for end in SUFFIXES if name.lower().endswith(end)), name)


@contextlib.contextmanager
def unpacked(stream: BinaryIO) -> Iterator[Any]:
    """Open a stream of what a file holds, unpacked as it is read; several members that follow each other are one.

    Args:
        stream: of the file, at its beginning.
    """
    found = _packing(stream)
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


def _packing(stream: BinaryIO) -> str | None:
    start = stream.read(4)
    return next((name for mark, name in PACKINGS.items() if start.startswith(mark)), None)
