"""Records of csv, tsv and other delimited files: the layout is checked first, then Arrow parses what is left."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recalign.errors import UserError
from recalign.sources.reading.dialect import LONGEST, Dialect, Layout, UnclosedError
from recalign.sources.reading.files import blocks, whole_lines
from recalign.sources.reading.records import NAMED, Batch, Reason, Records, Refusal

if TYPE_CHECKING:
    import polars as pl

MEND = "Mend or delete the row."
EMPTY = "Check that this is the file you meant."
FIELDS = Reason("a wrong number of fields", MEND)
QUOTE = Reason(
    "a quotation mark that is never closed",
    "Close or double it; where quotation marks are plain text, pass -p quote=none.",
)
TEXT = Reason("no text of the encoding", "Name the encoding of the file with -p encoding=NAME, such as latin-1.")
SHOWN = 60  # bytes of a record that a message shows
FOREIGN = ("PAR1", "ARROW1", '{"')  # Parquet, Arrow and JSON
PIECE = 1 << 20  # bytes that one thread of Arrow parses


class Delimited(Records):
    """Every column is a string; an empty field is missing. Blank lines are no records.

    Args:
        file: the file.
        dialect: how it is written.
        columns: names of the columns of a file without a header; None where the first record names them.
        name: from a cell of the header to the column's name.

    Raises:
        UserError: an empty file, or one that begins with no header of text.
    """

    def __init__(
        self, file: Path, dialect: Dialect, columns: Sequence[str] | None = None, name: Callable[[str], str] = str
    ) -> None:
        import polars as pl

        self.file, self.dialect, self._named = file, dialect, columns is not None
        self._body, header = self._header() if columns is None else (0, list(columns))
        if self._named and not file.stat().st_size:
            raise UserError(f"{file} is empty.", EMPTY)
        if not all(cell.isprintable() for cell in header) or header[0].startswith(FOREIGN):
            raise UserError(f"{file} begins with no header of text: {header[0][:20]!r}.", "Check that it is a table.")
        names = list(map(name, header))
        twice = next((each for each in names if each and names.count(each) > 1), None)
        if twice is not None:
            raise UserError(f"{file} has two columns '{twice}'.", "Rename one of them.")
        nameless = (f"(column {index})" for index, each in enumerate(names, 1) if not each)
        self.schema = {each or next(nameless): pl.String() for each in names}

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Read the file. Arguments and errors: as the base's."""
        done, hold, skip = 0, b"", self._body
        for text, last in whole_lines(self.file, self.dialect.encoding):
            part = self.dialect.simple(text)
            data = hold + part[skip:]
            skip = max(0, skip - len(part))
            layout = Layout(data, last, self.dialect, len(self.schema))
            hold = data[layout.used :]
            if layout.begins.any():
                batch = self._batch(layout, columns, done)
                done = done + int(layout.begins.sum())
                yield batch

    def _batch(self, layout: Layout, columns: Sequence[str], done: int) -> Batch:
        """Refuse records of a block and parse the others."""
        line = np.flatnonzero(layout.begins)
        start = layout.start[line]  # [n], as below
        stop = np.append(start[1:], layout.used)
        fields = layout.fields[line]
        unclosed = layout.unclosed[line]
        garbled = self._garbled(layout.data, start, stop)
        wrong = (fields != len(self.schema)) & ~unclosed & ~garbled
        good = ~(wrong | unclosed | garbled)
        data = layout.data if layout.used == len(layout.data) else layout.data[: layout.used]
        if not good.all():
            edges = np.flatnonzero(np.diff(np.concatenate([[False], good, [False]]).astype(np.int8)))
            data = b"".join(layout.data[start[a] : stop[b - 1]] for a, b in edges.reshape(-1, 2).tolist())
        frame = self._parse(data, columns)
        assert frame.height == good.sum(), (self.file, done)

        def shown(index: int) -> str:
            return repr(layout.data[start[index] : stop[index]][:SHOWN].decode("utf-8", "replace").strip("\r\n"))

        def counted(index: int) -> str:
            has = f"{fields[index]} field{'s' if fields[index] > 1 else ''}"
            wanted = f"{len(self.schema)} are named" if self._named else f"the header has {len(self.schema)}"
            return f"{has}, but {wanted}"

        refused = []
        for reason, mask, say in (
            (FIELDS, wrong, counted),
            (QUOTE, unclosed, lambda index: f"a quotation mark is never closed: {shown(index)}"),
            (TEXT, garbled, lambda index: f"not UTF-8 text: {shown(index)}"),
        ):
            index = np.flatnonzero(mask)
            if len(index):
                first = [(done + int(each) + 1, say(int(each))) for each in index[:NAMED]]
                refused.append(Refusal(reason, len(index), first))
        return Batch(frame, done + 1 + np.flatnonzero(good), refused)

    @staticmethod
    def _garbled(data: bytes, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        """[n] whether a record is not UTF-8."""
        garbled = np.zeros(len(start), bool)
        try:
            data.decode()
        except UnicodeDecodeError:
            beyond = np.flatnonzero(np.frombuffer(data, np.uint8) >= 128)
            beyond = beyond[beyond < stop[-1]]
            for index in np.unique(np.searchsorted(stop, beyond, side="right")).tolist():
                try:
                    data[start[index] : stop[index]].decode()
                except UnicodeDecodeError:
                    garbled[index] = True
        return garbled

    def _parse(self, data: bytes, columns: Sequence[str]) -> pl.DataFrame:
        """Parse records that are known to be whole."""
        import polars as pl
        import pyarrow as pa
        from pyarrow import csv as arrow

        quote = self.dialect.quote if self.dialect.quote and self.dialect.quote.encode() in data else False
        escape = self.dialect.escape if self.dialect.escape and self.dialect.escape.encode() in data else False
        several = bool(quote or escape)  # such records may go on for lines
        if not data:
            return pl.DataFrame(schema={name: pl.String for name in columns})
        table = arrow.read_csv(
            pa.py_buffer(data),
            read_options=arrow.ReadOptions(
                column_names=list(self.schema), block_size=max(PIECE, len(data) if several else _longest_line(data))
            ),
            parse_options=arrow.ParseOptions(
                delimiter=self.dialect.mark, quote_char=quote, escape_char=escape, newlines_in_values=several
            ),
            convert_options=arrow.ConvertOptions(
                column_types=dict.fromkeys(self.schema, pa.string()),
                include_columns=list(columns),
                strings_can_be_null=True,
                null_values=[""],
                check_utf8=False,
            ),
        )
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        return frame

    def _header(self) -> tuple[int, list[str]]:
        """Where the first record ends, and its fields."""
        data = b""
        for part in blocks(self.file, self.dialect.encoding):
            data += part
            if len(data) > LONGEST:
                break
        data = self.dialect.simple(data)
        start = len(data) - len(data.lstrip(b"\r\n"))
        if start == len(data):
            raise UserError(f"{self.file} is empty.", EMPTY)
        try:
            stop, _ = self.dialect.record(data, start, None)
        except UnclosedError:
            raise UserError(f"{self.file}: a quotation mark of the header is never closed.", QUOTE.hint) from None
        try:
            text = data[start:stop].decode()
        except UnicodeDecodeError:
            raise UserError(f"{self.file}, line 1: not UTF-8 text.", TEXT.hint) from None
        quoting = csv.QUOTE_NONE if self.dialect.quote is None else csv.QUOTE_MINIMAL
        lines = text.splitlines(keepends=True)
        reader = csv.reader(
            lines,
            delimiter=self.dialect.mark,
            quotechar=self.dialect.quote or '"',
            escapechar=self.dialect.escape,
            quoting=quoting,  # type: ignore[arg-type]
        )
        return stop, next(reader)


def _longest_line(data: bytes) -> int:
    """Bytes of the longest line, its end included: Arrow's blocks must hold it."""
    codes = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero((codes == ord("\n")) | (codes == ord("\r")))
    return int(np.diff(ends, prepend=-1, append=len(data)).max()) + 1
