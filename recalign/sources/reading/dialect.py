"""How a delimited file is written, and where its records lie in a block of bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from recalign.errors import UserError

LF, CR = 10, 13
UNIT = "\x1f"  # the unit separator of ASCII
CODE = re.compile(rb"(?=\D*\d)\S+")
LINE_END = re.compile(rb"\r\n|\r|\n")
LONGEST = 1 << 20  # bytes of a record of several lines; a quotation mark that is open for longer was never closed


class UnclosedError(Exception):
    """A quotation mark opens a field and is never closed.

    Args:
        yet: whether the text ended before the mark was closed, so that more text may close it.
    """

    def __init__(self, *, yet: bool = False) -> None:
        super().__init__()
        self.yet = yet


@dataclass(frozen=True)
class Dialect:
    """Of a delimited file, read as Python's `csv` reads it.

    A field that begins with the quoting character ends at the next one that is not doubled; elsewhere the character is
    text. Differs from `csv`: a quoted field of several lines must end where its field ends, its record must have as
    many fields as the others, and its lines must not look like records of their own. Else the quotation mark was never
    closed, and what follows it would be swallowed.

    Args:
        separator: between fields; one of several characters, such as the `::` of MovieLens, is read as one that no text
            holds.
        quote: the quoting character, or None where it is plain text.
        escape: the character that takes the meaning of the next one, or None.
        encoding: of the text.
    """

    separator: str = ","
    quote: str | None = '"'
    escape: str | None = None
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        if not self.separator or not self.separator.isascii() or set("\r\n") & set(self.separator):
            raise UserError(f"separator = {self.separator!r} is refused.", "Name one or several ASCII characters.")
        for name in ("quote", "escape"):
            character = getattr(self, name)
            if character is not None and (len(character) != 1 or not character.isascii() or character in "\r\n"):
                raise UserError(f"{name} = {character!r} is refused.", "Name one ASCII character.")
        marks = [mark for mark in (self.separator, self.quote, self.escape) if mark is not None]
        if len(set(marks)) < len(marks):
            raise UserError(f"One of {marks!r} has two meanings.", "Name different characters.")

    @property
    def mark(self) -> str:
        """The one character that separates fields in what `simple` returns."""
        return self.separator if len(self.separator) == 1 else UNIT

    def simple(self, data: bytes) -> bytes:
        """Return whole lines with separators of one character."""
        return data if len(self.separator) == 1 else data.replace(self.separator.encode(), UNIT.encode())

    @cached_property
    def _quoted(self) -> re.Pattern[bytes]:
        """A quoted field from its opening mark to its closing one."""
        quote = re.escape((self.quote or "").encode())
        escape = re.escape((self.escape or "").encode())
        plain = b"[^" + quote + escape + b"]*"
        pair = b"(?:" + quote * 2 + (b"|" + escape + b"." if escape else b"") + b")"
        return re.compile(quote + plain + b"(?:" + pair + plain + b")*" + quote + b"(?!" + quote + b")", re.DOTALL)

    @cached_property
    def _plain(self) -> re.Pattern[bytes]:
        """Text up to the next separator or line end."""
        separator, escape = (re.escape((mark or "").encode()) for mark in (self.mark, self.escape))
        return re.compile(
            b"(?:[^" + separator + escape + rb"\r\n]" + (b"|" + escape + b"." if escape else b"") + b")*", re.DOTALL
        )

    def record(self, data: bytes, start: int, width: int | None) -> tuple[int, int]:
        """Follow one record.

        Args:
            data: text that ends where a line or the file ends.
            start: where the record begins.
            width: fields of a record; None where that is not known yet.

        Returns:
            The position past its line end, and its number of fields.

        Raises:
            UnclosedError: a quotation mark is never closed.
        """
        quote, position = (self.quote or "").encode(), start
        cells: list[bytes | None] = []  # None: of several lines
        while True:
            begin, lines = position, False
            if quote and data.startswith(quote, position):
                field = self._quoted.match(data, position, position + LONGEST)
                if field is None:
                    raise UnclosedError(yet=len(data) - position < LONGEST)
                position = field.end()
                lines = LINE_END.search(data, begin, position) is not None
            rest = self._plain.match(data, position)
            assert rest is not None  # it matches nothing, too
            if lines and rest.end() > position:
                raise UnclosedError
            position = rest.end()
            cells.append(None if lines else data[begin:position])
            if position >= len(data) or data[position] in (LF, CR):
                break
            position += 1
        line_end = LINE_END.match(data, position)
        stop = line_end.end() if line_end else position
        if width and None in cells and self._swallowed(data[start:stop], cells, width):
            raise UnclosedError
        return stop, len(cells)

    def _swallowed(self, record: bytes, cells: list[bytes | None], width: int) -> bool:
        """Whether a record of several lines has not `width` cells, or most of its lines look like records themselves.

        A line looks like one if it has as many cells, none of which begins with a blank as words after a comma do, and
        codes, such as ids, numbers and dates, in the columns in which the record itself has codes.
        """
        if len(cells) != width:
            return True
        separator, quote = self.mark.encode(), (self.quote or "").encode()
        lines = [line for line in LINE_END.split(record)[1:] if line]
        alike = [line.split(separator) for line in lines if line.count(separator) == width - 1]
        if width == 1 or 2 * len(alike) <= len(lines):
            return False
        codes = [column for column, cell in enumerate(cells) if cell is not None and CODE.fullmatch(cell.strip(quote))]
        records = sum(
            not any(cell.startswith((b" ", b"\t")) for cell in line[1:])
            and all(CODE.fullmatch(line[column].strip(quote)) or not line[column] for column in codes)
            for line in alike
        )
        return 2 * records > len(lines)


@dataclass
class Layout:
    """Lines of a block of bytes, and which of them begin records.

    Args:
        data: the block; it ends where a line or the file ends.
        last: whether the file ends with it.
        dialect: of the file.
        width: fields of a record.
    """

    data: bytes
    last: bool
    dialect: Dialect
    width: int

    def __post_init__(self) -> None:
        self.array = np.frombuffer(self.data, np.uint8)
        end = np.flatnonzero(self.array == LF)
        if b"\r" in self.data:
            returns = np.flatnonzero(self.array == CR)
            following = self.array[np.minimum(returns + 1, len(self.array) - 1)]
            lone = returns[following != LF]
            end = np.sort(np.concatenate([end, lone])) if len(lone) else end
        self.stop = end + 1  # [L]
        if len(self.data) and (not len(end) or self.stop[-1] < len(self.data)):
            self.stop = np.append(self.stop, len(self.data))
        self.start = np.concatenate([[0], self.stop[:-1]]).astype(np.int64)[: len(self.stop)]  # [L]
        self.used = len(self.data)
        separators = np.flatnonzero(self.array == ord(self.dialect.mark))
        suspicious = np.zeros(0, np.int64)
        if self.dialect.quote is not None and self.dialect.quote.encode() in self.data:
            separators, suspicious = self._quotes(separators)
        if self.dialect.escape is not None:
            escapes = np.flatnonzero(self.array == ord(self.dialect.escape))
            suspicious = np.union1d(suspicious, np.searchsorted(self.stop, escapes, side="right"))
        self.fields = np.diff(np.searchsorted(separators, self.stop), prepend=0) + 1  # [L]
        self.begins = self._not_blank()  # [L]
        self.unclosed = np.zeros(len(self.stop), bool)  # [L]
        self._follow(suspicious)

    def _not_blank(self) -> np.ndarray:
        """[L] whether a line is more than its line end."""
        length, first = self.stop - self.start, self.array[self.start]
        ended = (first == LF) | (first == CR)
        return ~(ended & ((length == 1) | (length == 2) & (self.array[self.stop - 1] == LF)))

    def _quotes(self, separators: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Separators outside quotes, and lines whose quotes are not all in their places, each opened and closed."""
        quote, separator = ord(self.dialect.quote or ""), ord(self.dialect.mark)
        marks = np.flatnonzero(self.array == quote)
        line = np.searchsorted(self.stop, marks, side="right")
        before = np.searchsorted(marks, self.start)  # [L] marks on earlier lines
        opening = (np.arange(len(marks)) - before[line]) % 2 == 0
        left = self.array[np.maximum(marks - 1, 0)]
        right = self.array[np.minimum(marks + 1, len(self.array) - 1)]
        doubled = (left == quote) & (np.arange(len(marks)) > before[line])
        begins = (marks == self.start[line]) | (left == separator) | doubled
        ends = (marks + 1 == len(self.array)) | np.isin(right, (separator, quote, LF, CR))
        wrong = line[~np.where(opening, begins, ends)]
        odd = np.flatnonzero(np.bincount(line, minlength=len(self.stop)) % 2)
        of_separator = np.searchsorted(self.stop, separators, side="right")
        inside = (np.searchsorted(marks, separators) - before[of_separator]) % 2 == 1
        return separators[~inside], np.union1d(wrong, odd)

    def _follow(self, suspicious: np.ndarray) -> None:
        """Follow the records of suspicious lines one by one: some go on for lines, some never close."""
        suspicious = suspicious[self.begins[suspicious]]
        until, found = 0, []
        for line, start in zip(suspicious.tolist(), self.start[suspicious].tolist(), strict=True):
            if start < until:
                continue
            try:
                until, fields = self.dialect.record(self.data, start, self.width)
                found.append((line, until, fields))
            except UnclosedError as error:
                if error.yet and not self.last:
                    self._settle(found)
                    self._leave(line)
                    return
                self.unclosed[line] = True
        self._settle(found)

    def _settle(self, found: list[tuple[int, int, int]]) -> None:
        """Note the fields of records (line, end, fields); the lines that they go on for begin none."""
        if found:
            line, until, fields = np.array(found).T
            self.fields[line] = fields
            change = np.zeros(len(self.stop) + 1, np.int64)
            change[line + 1] += 1
            np.subtract.at(change, np.searchsorted(self.stop, until) + 1, 1)
            self.begins &= np.cumsum(change)[:-1] == 0

    def _leave(self, line: int) -> None:
        """Leave a line and all after it to the next block."""
        self.used = int(self.start[line])
        for name in ("start", "stop", "fields", "begins", "unclosed"):
            setattr(self, name, getattr(self, name)[:line])
