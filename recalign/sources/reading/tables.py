"""Opening a table by what its suffix says: delimited text, JSON lines or Parquet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from recalign.errors import UserError, did_you_mean
from recalign.sources.reading.delimited import Delimited
from recalign.sources.reading.dialect import Dialect
from recalign.sources.reading.files import codec, existing_file
from recalign.sources.reading.jsonlines import JsonLines
from recalign.sources.reading.records import Batch, Records

SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t", ".inter": "\t", ".item": "\t"}
JSON_LINES = (".jsonl", ".ndjson")
SUFFIXES = (*SEPARATORS, ".parquet", *JSON_LINES)
ROWS = 1 << 20


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


def open_table(
    file: Path,
    *,
    separator: str | None = None,
    columns: Sequence[str] | None = None,
    quote: str | None = '"',
    escape: str | None = None,
    encoding: str = "utf-8",
    header: Callable[[str], str] = str,
) -> Records:
    """Open a file of records.

    Args:
        file: .csv, .tsv, .parquet, .jsonl, or another suffix with a `separator`.
        separator: of delimited files; by the suffix where None.
        columns: names of the columns, where a delimited file has no header.
        quote: quoting character of delimited files, or None where quotation marks are plain text.
        escape: character of delimited files that takes the meaning of the next one, or None.
        encoding: of text without a byte order mark.
        header: from a cell of the header to the column's name.

    Raises:
        UserError: missing, empty or unreadable file, or an unknown suffix.
    """
    existing_file(file)
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        return Parquet(file)
    if suffix in JSON_LINES:
        return JsonLines(file, codec(encoding))
    if separator is None and suffix not in SEPARATORS:
        raise UserError(
            f"{file} has an unknown suffix '{suffix}'.",
            f"Known: {', '.join(SUFFIXES)}; of other delimited text, name the separator.",
        )
    return Delimited(file, Dialect(separator or SEPARATORS[suffix], quote, escape, codec(encoding)), columns, header)


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
