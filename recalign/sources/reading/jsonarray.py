"""Records of a JSON array, element by element as the file is read, on one line or many."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from recalign.errors import UserError
from recalign.sources.reading.files import LONGEST_LINE, blocks
from recalign.sources.reading.jsonlines import JsonChunk, JsonLines

TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|["\[\]{},]', re.DOTALL)  # a lone quotation mark: its end is still to come
OPEN, CLOSE = (b"[", b"{"), (b"]", b"}")
AT_ONCE = 8192  # objects


class JsonArray(JsonLines):
    """Objects in one pair of brackets; a record's number is its place among them. Arguments: as the base's."""

    place = "record"

    def _parts(self) -> Iterator[JsonChunk]:
        """Some objects at a time."""
        texts: list[bytes] = []
        lines: list[int] = []
        done = 0
        for text, line in self._elements():
            texts.append(text.replace(b"\r", b" ").replace(b"\n", b" "))
            lines.append(line)
            if len(texts) == AT_ONCE:
                yield _part(texts, lines, done)
                done += len(texts)
                texts, lines = [], []
        yield _part(texts, lines, done)

    def _elements(self) -> Iterator[tuple[bytes, int]]:
        """The text of each element, and the line that it begins in.

        An array that is never closed ends with an element that is no object: the file was cut off.
        """
        data, line, opened = b"", 1, False
        for block in blocks(self.file, self.encoding):
            data += block
            if not opened and b"[" not in data:
                continue  # blank lines
            start = 0 if opened else data.index(b"[") + 1
            line, opened, depth = line + data.count(b"\n", 0, start), True, 0
            for token in TOKEN.finditer(data, start):
                mark = token.group()
                if mark in OPEN:
                    depth += 1
                elif mark in CLOSE:
                    depth -= 1
                elif mark == b'"':
                    break
                if depth < 0 or (depth == 0 and mark == b","):
                    element = data[start : token.start()]
                    if depth == 0 or element.strip():
                        yield element, line + _blank_lines(element)
                    if depth < 0:
                        return
                    line += data.count(b"\n", start, token.end())
                    start = token.end()
            data = data[start:]
            if len(data) > LONGEST_LINE:
                raise UserError(
                    f"{self.file}, line {line}: an element longer than {LONGEST_LINE >> 20} MB, which still goes on.",
                    "Check for a quotation mark or bracket that is never closed.",
                )
        yield data, line + _blank_lines(data)
        if self.parse(data)[1] is None:
            yield b"", line + data.count(b"\n")


def _blank_lines(element: bytes) -> int:
    """How many lines end before an element's text."""
    return element.count(b"\n", 0, len(element) - len(element.lstrip()))


def _part(texts: list[bytes], lines: list[int], done: int) -> JsonChunk:
    return b"\n".join(texts), texts, done + 1 + np.arange(len(texts)), np.array(lines, np.int64)
