"""Files and folders that must exist, and the text of a file as blocks of UTF-8 that end where a line ends."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from recalign.errors import UserError, closest
from recalign.sources.reading.compression import DAMAGED, compression, decompressed
from recalign.sources.reading.meter import metered

BLOCK = 8 << 20
LONGEST_LINE = 64 << 20
"""Bytes of a line; a longer one is no record, and what unpacks to it is not worth the memory."""
LARGEST_DOCUMENT = 1 << 30
"""Bytes of a JSON document that is read at once."""
MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def existing(path: Path) -> Path:
    """Return the path.

    Raises:
        UserError: there is nothing there (with did-you-mean).
    """
    if not path.exists():
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"{path} does not exist.", closest(path.name, beside) or "Check the path.")
    return path


def existing_folder(path: Path) -> Path:
    """Return the path.

    Raises:
        UserError: there is nothing there, or a file.
    """
    if not existing(path).is_dir():
        raise UserError(f"{path} is a file, not a folder.", "Name the folder that it is in.")
    return path


def existing_file(path: Path) -> Path:
    """Return the path.

    Raises:
        UserError: there is nothing there, or a folder.
    """
    if existing(path).is_dir():
        raise UserError(f"{path} is a folder, not a file.", "Name a file in it.")
    return path


def codec(encoding: str) -> str:
    """Return the codec's own name of a text encoding.

    Raises:
        UserError: Python knows no such encoding of text.
    """
    try:
        found = codecs.lookup(encoding)
        "".encode(encoding)  # a codec of bytes, such as base64, refuses text
    except LookupError:
        raise UserError(f"There is no encoding {encoding!r}.", "Such as utf-8, latin-1, cp1252, gbk.") from None
    return found.name


def blocks(file: Path, encoding: str) -> Iterator[bytes]:
    """Yield a text file's bytes, without a byte order mark, as UTF-8; a gzip or zstd file's as they unpack.

    A byte order mark says the encoding, whatever `encoding` is. Bytes of a UTF-8 file are handed on as they are: what
    is no UTF-8 is for the reader of the lines to name.

    Args:
        file: the file.
        encoding: of the file, where it has no byte order mark.

    Raises:
        UserError: the file cannot be read, ends amid its compressed data, or is not in that encoding.
    """
    lines = 0
    try:
        with file.open("rb") as raw, decompressed(raw) as stream:
            block = _filled(stream.read)
            mark = next((mark for mark in MARKS if block.startswith(mark)), b"")
            encoding = codec(MARKS.get(mark, encoding))
            block = block[len(mark) :]
            plain = _plain(block, stream.read) if encoding == "utf-8" else _as_utf8(file, encoding, block, stream.read)
            for part in metered(plain, raw):
                lines += part.count(b"\n")
                yield part
    except DAMAGED as error:
        if compression(file) is None:
            raise UserError(f"{file} cannot be read: {getattr(error, 'strerror', '') or error}.", "Check it.") from None
        raise UserError(
            f"{file} is damaged or cut off: its {compression(file)} data break off after line {lines} ({error}).",
            "Download it again, and compare its size with the original's.",
        ) from None


def _filled(read: Callable[[int], bytes]) -> bytes:
    """The first block, though the stream hands over less at a time."""
    parts = []
    missing = BLOCK
    while missing > 0 and (part := read(missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _plain(block: bytes, read: Callable[[int], bytes]) -> Iterator[bytes]:
    """UTF-8 as it is."""
    while block:
        yield block
        block = read(BLOCK)


def _as_utf8(file: Path, encoding: str, block: bytes, read: Callable[[int], bytes]) -> Iterator[bytes]:
    """Decode and encode again, block by block."""
    decoder, line = codecs.getincrementaldecoder(encoding)(), 1
    try:
        while block:
            text = decoder.decode(block)
            line += text.count("\n")
            yield text.encode("utf-8", "surrogatepass")
            block = read(BLOCK)
        yield decoder.decode(b"", final=True).encode()
    except UnicodeDecodeError as error:
        line += error.object[: error.start].decode(encoding, "replace").count("\n")
        raise UserError(
            f"{file}, line {line}: not {encoding} text ({error.reason}).", "Name the encoding with -p encoding=NAME."
        ) from None


def whole_lines(file: Path, encoding: str) -> Iterator[tuple[bytes, bool]]:
    """Yield blocks that end where a line ends, each with whether it is the last one.

    Args:
        file: as in `blocks`.
        encoding: as in `blocks`.

    Raises:
        UserError: as `blocks`; a line is longer than `LONGEST_LINE`.
    """
    rest, lines = b"", 0
    for part in blocks(file, encoding):
        data = rest + part
        end = data.rfind(b"\n") + 1 or data.rfind(b"\r", 0, len(data) - 1) + 1
        rest = data[end:]
        if end:
            lines += data.count(b"\n")
            yield data[:end], False
        if len(rest) > LONGEST_LINE:
            raise UserError(
                f"{file}, line {lines + 1}: longer than {LONGEST_LINE >> 20} MB, and it still goes on.",
                "Check that the file is text with a record a line.",
            )
    yield rest, True


def document(file: Path, encoding: str = "utf-8") -> Any:
    """Return what one JSON document holds.

    Args:
        file: as in `blocks`.
        encoding: as in `blocks`.

    Raises:
        UserError: as `blocks`; the text is no JSON, or longer than `LARGEST_DOCUMENT`.
    """
    parts, size = [], 0
    for part in blocks(file, codec(encoding)):
        parts.append(part)
        size += len(part)
        if size > LARGEST_DOCUMENT:
            raise UserError(
                f"{file} is longer than {LARGEST_DOCUMENT >> 20} MB, which is too long for one JSON document.",
                "Write it as JSON lines.",
            )
    try:
        return json.loads(b"".join(parts), parse_constant=str)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not readable JSON: {error}.", "Check that the file is whole.") from None
