"""Reading delimited and columnar files lazily, with the file and row number of what cannot be read."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from recalign.errors import UserError, closest, did_you_mean

if TYPE_CHECKING:
    import polars as pl

Kind = Literal["id", "number", "time"]

SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t", ".inter": "\t", ".item": "\t"}
DATE_TIMES = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M")
SUFFIXES = (*SEPARATORS, ".parquet", ".jsonl", ".ndjson")


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


def scan(file: Path, *, separator: str | None = None, quote: str | None = '"') -> pl.LazyFrame:
    """Open a file lazily; every column of a delimited file is a string.

    Args:
        file: .csv, .tsv, .parquet, .jsonl, or another suffix with a `separator`.
        separator: column separator; by the suffix where None.
        quote: quoting character of delimited files, or None where quotes are plain text.

    Raises:
        UserError: missing, empty or unreadable file, or an unknown suffix.
    """
    import polars as pl

    existing_file(file)
    suffix = file.suffix.lower()
    if separator is None and suffix not in SUFFIXES:
        raise UserError(f"{file} has an unknown suffix '{suffix}'.", f"Known: {', '.join(SUFFIXES)}.")
    try:
        if suffix == ".parquet":
            frame = pl.scan_parquet(file)
        elif suffix in (".jsonl", ".ndjson"):
            frame = pl.scan_ndjson(file, infer_schema_length=1000)
        else:
            frame = pl.scan_csv(
                file, separator=separator or SEPARATORS[suffix], quote_char=quote, infer_schema=False, has_header=True
            )
        names = frame.collect_schema().names()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable(file, error, separator, quote) from None
    if not all(name.isprintable() for name in names):
        raise UserError(f"{file} begins with no header of text: {names[0][:20]!r}.", "Check that it is a table.")
    return frame


def require(frame: pl.LazyFrame, file: Path, columns: Mapping[str, str]) -> None:
    """Check that columns exist.

    Args:
        frame: what `scan` returned.
        file: for the error text.
        columns: the option that names the column -> the column.

    Raises:
        UserError: a column is missing (with did-you-mean).
    """
    known = frame.collect_schema().names()
    for option, column in columns.items():
        if column not in known:
            raise UserError(
                f"{file} has no column '{column}'.", f"{did_you_mean(column, known)} Name it with -p {option}=COLUMN."
            )


def typed(
    frame: pl.LazyFrame,
    file: Path,
    columns: Mapping[str, tuple[str, Kind]],
    *,
    separator: str | None = None,
    quote: str | None = '"',
) -> pl.LazyFrame:
    """Parse columns and check every row once, streaming.

    Args:
        frame: what `scan` returned.
        file: for the error text.
        columns: name in the result -> (column of the file, kind). An id is a non-empty string; a number is
            finite; a time is a number, a date or an ISO date-time (in seconds since 1970 in the result). A number may
            be missing, the others not.
        separator: as given to `scan`.
        quote: as given to `scan`.

    Returns:
        A lazy frame with the named columns (str and float64).

    Raises:
        UserError: a row cannot be parsed; its number (counted from 1 after the header), column and value are named.
    """
    import polars as pl

    try:
        parsed = {name: _parser(frame, column, kind) for name, (column, kind) in columns.items()}
        bad = {
            name: parsed[name].is_null() & (pl.lit(kind != "number") | pl.col(column).is_not_null())
            for name, (column, kind) in columns.items()
        }
        wrong = (
            frame.with_row_index("__row")
            .filter(pl.any_horizontal(*bad.values()))
            .select(
                "__row",
                *(pl.col(c).alias(f"raw_{n}") for n, (c, _) in columns.items()),
                *(bad[n].alias(n) for n in bad),
            )
            .head(1)
            .collect(engine="streaming")
        )
    except pl.exceptions.PolarsError as error:
        raise unreadable(file, error, separator, quote) from None
    if wrong.height:
        first = wrong.row(0, named=True)
        name = next(name for name in columns if first[name])
        column, kind = columns[name]
        meaning = {"id": "an id", "number": "a number", "time": "a time"}[kind]
        raise UserError(
            f"{file}, row {first['__row'] + 1}: {column} = {first[f'raw_{name}']!r} is not {meaning}.",
            "Rows are counted from 1 after the header. Mend or delete the row.",
        )
    return frame.select(**parsed)


def _parser(frame: pl.LazyFrame, column: str, kind: Kind) -> pl.Expr:
    """Expression that parses a column, null where it cannot be parsed."""
    import polars as pl

    dtype = frame.collect_schema()[column]
    cell = pl.col(column)
    if kind == "id":
        text = cell.cast(pl.String)
        return pl.when(text.str.strip_chars() != "").then(text)
    if dtype.is_temporal():
        return cell.cast(pl.Datetime("us")).dt.epoch("us") / 1e6
    number = cell.cast(pl.Float64, strict=False)
    if kind == "time" and dtype == pl.String:
        sample = frame.select(cell).head(1).collect()
        if sample.height and sample.select(number).item() is None and sample.item() is not None:
            plain = cell.str.strip_suffix("Z").str.strip_suffix("+00:00")
            read = [plain.str.to_datetime(form, time_unit="us", strict=False) for form in DATE_TIMES]
            read.append(plain.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us")))
            return pl.coalesce(read).dt.epoch("us") / 1e6
    return pl.when(number.is_finite()).then(number)


def unreadable(file: Path, error: Exception, separator: str | None = None, quote: str | None = '"') -> UserError:
    """Turn a reader's error into one that names the row; looks through the file, since something is wrong anyway."""
    for place, problem in _broken_rows(file, separator, quote):
        hint = "Mend or delete the row." if place else "Check that this is the file you meant."
        return UserError(f"{file}, {place}: {problem}." if place else f"{file} {problem}.", hint)
    return UserError(
        f"{file} cannot be read: {str(error).splitlines()[0]}.", "Check that the file is what its suffix says."
    )


def _broken_rows(file: Path, separator: str | None, quote: str | None) -> Iterator[tuple[str, str]]:
    """Places of a text file that are no UTF-8, no JSON, or have a wrong number of fields."""
    import json

    suffix = file.suffix.lower()
    if file.is_dir() or suffix == ".parquet":
        return
    with file.open("rb") as lines:
        number = 0
        for number, line in enumerate(lines, 1):
            try:
                text = line.decode("utf-8")
                if suffix in (".jsonl", ".ndjson") and text.strip() and not isinstance(json.loads(text), dict):
                    yield f"line {number}", f"not a JSON object: {text.strip()[:60]!r}"
            except UnicodeDecodeError:
                yield f"line {number}", "not UTF-8 text"
            except json.JSONDecodeError as problem:
                yield f"line {number}", f"not JSON ({problem.msg}): {text.strip()[:60]!r}"
        if not number:
            yield "", "is empty"
    if suffix in (".jsonl", ".ndjson"):
        return
    with file.open(encoding="utf-8", newline="") as text_lines:
        quoting = csv.QUOTE_NONE if quote is None else csv.QUOTE_MINIMAL
        reader = csv.reader(
            text_lines, delimiter=separator or SEPARATORS[suffix], quotechar=quote or '"', quoting=quoting
        )
        header = next(reader, [])
        for row, fields in enumerate(reader, 1):
            if len(fields) > len(header):
                yield f"row {row}", f"{len(fields)} fields, but the header has {len(header)}"
