"""Histories that come on stdin, one a line, and the lines that answer them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from recalign import console
from recalign.commands.schemas import identifier
from recalign.errors import UserError, did_you_mean
from recalign.reading import FileRecord, checked, parse_json

if TYPE_CHECKING:
    from recalign.decoding.serving import ListService

FORM = "Write titles or ids between tabs, or a JSON object with `history`."
LONGEST_LINE = 1 << 20
"""Bytes of a line; a history of thousands of titles has fewer."""


class HistoryLine(FileRecord):
    """A JSON object on stdin; what it lacks is as the command line says."""

    history: list[str | int]
    candidates: list[str | int] | None = None
    size: int | None = Field(None, ge=1)
    profile: str | None = None


def answer_lines(service: ListService, asked: Mapping[str, Any], facts: Mapping[str, Any]) -> tuple[int, int]:
    """Answer every line of stdin by one line on stdout as soon as it has come, until the input ends or nobody reads.

    Args:
        service: the model.
        asked: candidates, size and profile where a line does not say.
        facts: what every answer states besides.

    Returns:
        How many lines were answered, and how many were refused; those are answered by their error.
    """
    service.load()  # what is wrong with the model is no line's fault
    answered = refused = 0
    for number, line in enumerate(_lines(), 1):
        try:
            stated = read_line(line, f"Line {number}")
            found = service.recommend(**{**asked, **stated})
            answer = {"schema": identifier("recommend"), **facts, "line": number, **found}
            answered += 1
        except UserError as error:
            answer = {"schema": identifier("error"), "line": number, "error": error.what, "hint": error.hint}
            refused += 1
        if not console.write(json.dumps(answer, allow_nan=False)):
            break
    return answered, refused


def read_line(line: bytes, where: str) -> dict[str, Any]:
    """Read the history of a line, and what else it says.

    Args:
        line: titles or ids between tabs, or, where it begins with a brace, a JSON object (see `HistoryLine`).
        where: the line stands, for error texts.

    Returns:
        `history` and possibly `candidates`, `size` and `profile`.

    Raises:
        UserError: it is too long, no UTF-8, no such object, or empty.
    """
    if len(line) > LONGEST_LINE:
        raise UserError(f"{where} has more than {LONGEST_LINE:,} bytes.", FORM)
    try:
        text = line.decode("utf-8-sig").strip("\r\n")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where} is not in UTF-8: byte {error.start + 1} is 0x{line[error.start]:02x}.", "Convert it to UTF-8."
        ) from None
    if not text.lstrip().startswith("{"):
        return {"history": [name.strip() for name in text.split("\t") if name.strip()]}
    value = parse_json(text, where, f"A line that begins with a brace is JSON. {FORM}", unique=True)
    unknown = next((key for key in value if key not in HistoryLine.model_fields), None)
    if unknown is not None:
        raise UserError(f"{where}: there is no key '{unknown}'.", did_you_mean(unknown, HistoryLine.model_fields))
    stated = {key: each for key, each in checked(value, HistoryLine, where, FORM).items() if each is not None}
    return {key: [*map(str, each)] if isinstance(each, list) else each for key, each in stated.items()}


def _lines() -> Iterator[bytes]:
    """The lines of stdin; what follows the first LONGEST_LINE bytes of one is left out but for a byte, which tells."""
    stream = sys.stdin.buffer if sys.stdin is not None else None
    while stream is not None and (line := stream.readline(LONGEST_LINE + 1)):
        rest = line
        while not rest.endswith(b"\n") and len(rest) > LONGEST_LINE:
            rest = stream.readline(LONGEST_LINE + 1)
        yield line
