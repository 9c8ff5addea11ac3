"""Files and folders that must exist, and the text of a file as blocks of UTF-8 that end where a line ends."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from pathlib import Path

from recalign.errors import UserError, closest

BLOCK = 8 << 20
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
    """Yield a text file's bytes, without a byte order mark, as UTF-8.

    A byte order mark says the encoding, whatever `encoding` is. Bytes of a UTF-8 file are handed on as they are: what
    is no UTF-8 is for the reader of the lines to name.

    Args:
        file: the file.
        encoding: of the file, where it has no byte order mark.

    Raises:
        UserError: the file cannot be read, or is not in that encoding.
    """
    try:
        with file.open("rb") as stream:
            block = stream.read(BLOCK)
            mark = next((mark for mark in MARKS if block.startswith(mark)), b"")
            encoding = codec(MARKS.get(mark, encoding))
            block = block[len(mark) :]
            if encoding == "utf-8":
                while block:
                    yield block
                    block = stream.read(BLOCK)
                return
            yield from _as_utf8(file, encoding, block, stream.read)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}.", "Check the file.") from None


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


def whole_lines(parts: Iterator[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield blocks that end where a line ends, each with whether it is the last one.

    Args:
        parts: what `blocks` yields.
    """
    rest = b""
    for part in parts:
        data = rest + part
        end = data.rfind(b"\n") + 1 or data.rfind(b"\r", 0, len(data) - 1) + 1
        rest = data[end:]
        if end:
            yield data[:end], False
    yield rest, True
