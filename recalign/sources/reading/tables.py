"""Opening a table by what it holds: delimited text, JSON, Python literals, Parquet or Arrow, compressed or not."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recalign.errors import UserError, did_you_mean
from recalign.sources.reading.compression import bare
from recalign.sources.reading.delimited import Delimited
from recalign.sources.reading.dialect import Dialect
from recalign.sources.reading.files import blocks, codec, existing_file
from recalign.sources.reading.jsonarray import JsonArray
from recalign.sources.reading.jsonlines import JsonLines, PythonLines
from recalign.sources.reading.objects import SHOWN, json_object, python_object
from recalign.sources.reading.records import Batch, Records

SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t", ".inter": "\t", ".item": "\t"}
OBJECTS = (".jsonl", ".ndjson", ".json")
SUFFIXES = (*SEPARATORS, *OBJECTS, ".parquet", ".arrow")
ROWS = 1 << 20
OPENING = 1 << 20
LOOKED_AT = 100  # lines, of which the first that can be read tells how a file of objects is written


class Parquet(Records):
    """Rows of a Parquet file, with its own types.

    Args:
        file: the file.

    Raises:
        UserError: it cannot be read.
    """

    def __init__(self, file: Path) -> None:
        import polars as pl

        self.file = file
        try:
            self.schema = dict(pl.scan_parquet(file).collect_schema())
        except (pl.exceptions.PolarsError, OSError) as error:
            raise self._unreadable(error) from None

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Read the file. Arguments and errors: as the base's."""
        import polars as pl

        try:
            frame = pl.scan_parquet(self.file)
            height = frame.select(pl.len()).collect().item()
            for start in range(0, height, ROWS):
                batch = frame.select(columns).slice(start, ROWS).collect()
                yield Batch(batch, 1 + start + np.arange(batch.height))
        except (pl.exceptions.PolarsError, OSError) as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> UserError:
        return UserError(
            f"{self.file} cannot be read: {str(error).splitlines()[0]}.", "Check that the file is what its suffix says."
        )


class Arrow(Records):
    """Rows of an Arrow file or stream, as `datasets` writes them, with its own types.

    Args:
        file: the file.

    Raises:
        UserError: it cannot be read.
    """

    def __init__(self, file: Path) -> None:
        import polars as pl

        self.file = file
        for batch in self._tables():
            self.schema = dict(pl.DataFrame(batch.slice(0, 0)).schema)
            break

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Read the file. Arguments and errors: as the base's."""
        import polars as pl

        done = 0
        for table in self._tables():
            if table.num_rows:
                yield Batch(pl.DataFrame(table.select(list(columns))), done + 1 + np.arange(table.num_rows))
                done += table.num_rows

    def _tables(self) -> Iterator[Any]:
        """An empty table of the file's schema, then its record batches."""
        import pyarrow as pa

        try:
            with pa.memory_map(str(self.file)) as source:
                streamed = bytes(source.read(6)) != b"ARROW1"
                source.seek(0)
                reader = pa.ipc.open_stream(source) if streamed else pa.ipc.open_file(source)
                yield reader.schema.empty_table()
                batches = reader if streamed else map(reader.get_batch, range(reader.num_record_batches))
                for batch in batches:
                    yield pa.Table.from_batches([batch])
        except (pa.ArrowException, OSError) as error:
            raise UserError(
                f"{self.file} cannot be read: {str(error).splitlines()[0]}.", "Check that it is a whole Arrow file."
            ) from None


def open_table(
    file: Path,
    *,
    separator: str | None = None,
    columns: Sequence[str] | None = None,
    quote: str | None = '"',
    escape: str | None = None,
    encoding: str = "utf-8",
    header: Callable[[str], str] = str,
    keys: dict[str, bool] | None = None,
) -> Records:
    """Open a file of records.

    Parquet, Arrow and JSON are known by how they begin, gzip and zstd too; what else there is, the suffix tells.

    Args:
        file: .csv, .tsv, .json, .jsonl, .parquet, .arrow, or another suffix with a `separator`; with .gz or .zst.
        separator: of delimited files; by the suffix where None.
        columns: names of the columns, where a delimited file has no header.
        quote: quoting character of delimited files, or None where quotation marks are plain text.
        escape: character of delimited files that takes the meaning of the next one, or None.
        encoding: of text without a byte order mark.
        header: from a cell of the header to the column's name.
        keys: of objects, where the format tells them; see `JsonLines`.

    Raises:
        UserError: missing, empty or unreadable file, or an unknown suffix.
    """
    existing_file(file)
    suffix = Path(bare(file.name)).suffix.lower()
    start = first_bytes(file)
    if start.startswith(b"PAR1") or suffix == ".parquet":
        return Parquet(file)
    if start.startswith((b"ARROW1", b"\xff\xff\xff\xff")) or suffix == ".arrow":
        return Arrow(file)
    if suffix in OBJECTS:
        return objects(file, codec(encoding), keys)
    if separator is None and suffix not in SEPARATORS:
        raise UserError(
            f"{file} has an unknown suffix '{suffix}'.",
            f"Known: {', '.join(SUFFIXES)}; of other delimited text, name the separator.",
        )
    return Delimited(file, Dialect(separator or SEPARATORS[suffix], quote, escape, codec(encoding)), columns, header)


def first_bytes(file: Path) -> bytes:
    """Return the first bytes of a file as they are, 16 at most."""
    with file.open("rb") as stream:
        return stream.read(16)


def _opening(file: Path, encoding: str) -> bytes:
    """The first megabyte of a text, without blanks before it."""
    text = b""
    for block in blocks(file, encoding):
        text = (text + block).lstrip()
        if len(text) >= OPENING:
            break
    return text


def objects(file: Path, encoding: str, keys: dict[str, bool] | None = None) -> JsonLines:
    """Open JSON lines, a JSON array, or lines of Python literals, whichever a file begins with.

    Args:
        file: the file.
        encoding: of the text, where it has no byte order mark.
        keys: as in `open_table`.

    Raises:
        UserError: it is empty, or holds nothing of the kind.
    """
    text = _opening(file, encoding)
    if not text:
        raise UserError(f"{file} is empty.", "Check that this is the file you meant.")
    first, _, rest = text.partition(b"\n")
    if text.startswith(b"[") and not (first.rstrip().endswith(b"]") and rest.strip()):
        return JsonArray(file, encoding, keys)
    lines = [line for line in text.split(b"\n", LOOKED_AT)[:LOOKED_AT] if line.strip()]
    for line in lines:
        for parse, reader in ((json_object, JsonLines), (python_object, PythonLines)):
            if parse(line)[1] is None:
                return reader(file, encoding, keys)
    shown = lines[0][:SHOWN].decode("utf-8", "replace")
    raise UserError(
        f"{file}, line 1: neither a JSON object nor a Python literal of one: {shown!r}.",
        "Check that the file holds one object a line, or one array of objects.",
    )


def glimpse(file: Path) -> list[str]:
    """Return the keys of a file's first object, the columns of a table, or the cells of the first line of other text.

    Args:
        file: that exists; a damaged one, or one without text, has none of these.
    """
    try:
        if first_bytes(file).startswith((b"PAR1", b"ARROW1", b"\xff\xff\xff\xff")):
            return list(open_table(file).schema)
        text = _opening(file, "utf-8")
        if text.startswith((b"[", b"{")):
            return next(objects(file, "utf-8", {}).first_keys(), [])
        line = text.partition(b"\n")[0].strip().decode("utf-8", "replace")
        separator = next((mark for mark in ("\t", "::", "|", ";", ",", " ") if mark in line), ",")
        return next(csv.reader([line], delimiter=separator)) if len(separator) == 1 else line.split(separator)
    except (UserError, StopIteration, csv.Error):
        return []


def require(table: Records, columns: Mapping[str, str]) -> None:
    """Check that columns exist.

    Args:
        table: what `open_table` returned.
        columns: the option that names the column -> the column.

    Raises:
        UserError: a column is missing (with did-you-mean).
    """
    for option, column in columns.items():
        if column not in table.schema:
            raise UserError(
                f"{table.file} has no column '{column}'.",
                f"{did_you_mean(column, table.schema)} Name it with -p {option}=COLUMN.",
            )


def choose(table: Records, option: str, wanted: str | None, usual: Sequence[str]) -> str | None:
    """Return the column asked for, or the first of the usual ones that is there, or None.

    Args:
        table: what `open_table` returned.
        option: that names the column.
        wanted: what the user named with it, if anything.
        usual: names that such a column has, the likeliest first.

    Raises:
        UserError: the column asked for is missing (with did-you-mean).
    """
    if wanted is not None:
        require(table, {option: wanted})
        return wanted
    return next((name for name in usual if name in table.schema), None)
