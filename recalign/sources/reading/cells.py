"""Cells of known meaning: ids, numbers and times; a record with a cell that has no such meaning is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from recalign.api.sources import FileAccount
from recalign.errors import UserError
from recalign.preparation.times import in_seconds, units_of
from recalign.sources.reading.records import NAMED, Batch, Reason, Records, Refusal, Tally

if TYPE_CHECKING:
    import polars as pl

Kind = Literal["id", "list", "number", "time", "order"]

DATE_TIMES = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d %H:%M",
    "%a %b %d %H:%M:%S %z %Y",  # of Goodreads: Wed Dec 09 08:53:49 -0800 2015
    "%Y-%m-%dT%H:%M:%S%.f%z",
    "%Y-%m-%d %H:%M:%S%.f%z",
    "%Y-%m-%d %H:%M:%S%.f %z",
    "%Y/%m/%d",
    "%Y/%m/%d %H:%M:%S",
    "%m %d, %Y",  # of Amazon's reviewTime: 09 13, 2009
    "%d-%b-%Y",
    "%B %d, %Y",
)
MISSING = ("", "nan", "-nan", "na", "n/a", "#n/a", "<na>", "null", "none", "nil")
LIST = r"^\s*\[\s*([^\[\],]+(\s*,\s*[^\[\],]+)*)?\s*\]\s*$"
MEANINGS = {"id": "an id", "list": "a list of ids, such as [1, 2, 3]", "number": "a number", "time": "a time"}
MEND = "Mend or delete the row."


@dataclass
class Column:
    """A column of a table.

    Args:
        name: in the file.
        kind: what its cells are. An id is a non-empty string, a `list` a list of ids or the text of one. A number is
            finite, or missing (an empty cell, NaN, NA, null and the like). A time is a number, a date or a date-time,
            in seconds since 1970 in the result; a column has numbers or dates, not both, and numbers are seconds,
            milliseconds, microseconds or nanoseconds as their size tells. An `order` has no cells: the records' order
            is the time.
        hint: what else to do about a cell without that meaning.
        separator: between the ids of a list that is written without brackets; missing cells are then empty lists.
    """

    name: str
    kind: Kind
    hint: str = ""
    separator: str | None = None
    dated: bool | None = field(default=None, init=False)  # whether the times are dates, as the first one tells


@dataclass(frozen=True)
class Read:
    """What `typed` made of a table.

    Args:
        frame: the columns asked for, of all records that could be read.
        account: of the table's file.
        rows: every column, of the same records, as they are in the file.
    """

    frame: pl.LazyFrame
    account: FileAccount
    rows: pl.LazyFrame


def typed(
    table: Records,
    columns: Mapping[str, Column],
    beside: Sequence[str] = (),
    keep: Callable[[pl.DataFrame], None] | None = None,
) -> Read:
    """Read the file once and parse columns. Ids become categories: a record takes 8 bytes a column at most.

    Args:
        table: the records.
        columns: name in the result -> column.
        beside: columns that are read besides, as they are.
        keep: is handed these and the others, as they are in the file, of some records at a time.

    Returns:
        Categories, lists of strings and float64 numbers (null where missing) by column, and the account.

    Raises:
        UserError: the file cannot be read at all.
    """
    import polars as pl

    _check_types(table, columns)
    named = [column.name for column in columns.values() if column.kind != "order"]
    needed = list(dict.fromkeys([*named, *beside]))
    tally, parts, without = Tally(table), [], []
    for batch in table.batches(needed):
        frame, refused, bad = _parse(batch, columns, table.order)
        tally.add(frame.height, [*batch.refused, *refused])
        parts.append(frame)
        without.append(bad)
        if keep is not None:
            keep(batch.frame if not len(bad) else batch.frame.filter(~np.isin(batch.number, bad)))
    whole = pl.concat(parts, rechunk=False) if parts else _empty(columns)
    whole = whole.with_columns(seconds(whole[name]) for name, column in columns.items() if column.kind == "time")
    rows = table.lazy(np.concatenate(without) if without else np.zeros(0, np.int64))
    return Read(whole.lazy(), tally.account(), rows)


def _check_types(table: Records, columns: Mapping[str, Column]) -> None:
    """Refuse columns whose type has no such meaning at all, such as lists."""
    import polars as pl

    for column in columns.values():
        dtype = table.schema.get(column.name)
        inner = dtype.inner if column.kind == "list" and isinstance(dtype, pl.List) else dtype
        if column.kind != "order" and inner is not None and inner.is_nested():
            raise UserError(
                f"{table.file}: the column '{column.name}' holds {dtype}, which is not {MEANINGS[column.kind]}.",
                f"{column.hint or 'Name another column.'}",
            )


def _empty(columns: Mapping[str, Column]) -> pl.DataFrame:
    """No records."""
    import polars as pl

    dtypes = {"id": pl.Categorical(), "list": pl.List(pl.String)}
    return pl.DataFrame(schema={name: dtypes.get(column.kind, pl.Float64) for name, column in columns.items()})


def _parse(
    batch: Batch, columns: Mapping[str, Column], order: Callable[[np.ndarray], np.ndarray]
) -> tuple[pl.DataFrame, list[Refusal], np.ndarray]:
    """Parse a batch; returns the typed records, the refusals, and the numbers of the refused records."""
    import polars as pl

    parsed: dict[str, pl.Series] = {}
    good = np.ones(batch.frame.height, bool)
    refusals = []
    for name, column in columns.items():
        if column.kind == "order":
            parsed[name] = pl.Series(order(batch.number), dtype=pl.Float64)
            continue
        cells = batch.frame[column.name]
        values, bad = {"id": _ids, "list": as_lists, "number": _numbers, "time": _times}[column.kind](cells, column)
        parsed[name] = values
        index = np.flatnonzero(bad & good)
        if len(index):
            mixed = column.dated is not None and column.kind == "time"
            said = f"{column.name} is not {MEANINGS[column.kind]}"
            hint = f"{MEND} {column.hint}".strip()
            first = [(int(batch.number[i]), _complaint(cells[int(i)], column, mixed)) for i in index[:NAMED]]
            refusals.append(Refusal(Reason(said, hint), len(index), first))
            good &= ~bad
    frame = pl.DataFrame(parsed)
    return (frame if good.all() else frame.filter(good)), refusals, batch.number[~good]


def _complaint(cell: object, column: Column, told: bool) -> str:
    """What a message says of a cell."""
    form = ""
    if told and cell is not None and str(cell).strip():
        form = " of the kind that the column begins with, a " + ("date" if column.dated else "number")
    return f"{column.name} = {cell!r} is not {MEANINGS[column.kind]}{form}"


def _ids(cells: pl.Series, column: Column) -> tuple[pl.Series, np.ndarray]:
    """Ids as codes, and where there is none."""
    import polars as pl

    text = cells.cast(pl.String)
    bad = (text.is_null() | (text.str.strip_chars() == "").fill_null(True)).to_numpy()
    return text.cast(pl.Categorical), bad


def as_lists(cells: pl.Series, column: Column) -> tuple[pl.Series, np.ndarray]:
    """Lists, and where there is none. Lists written as text are split, never evaluated."""
    import polars as pl

    if isinstance(cells.dtype, pl.List):
        return cells, cells.is_null().to_numpy()
    text = cells.cast(pl.String)
    if column.separator is not None:
        split = text.fill_null("").str.split(column.separator)
        return split.list.eval(pl.element().filter(pl.element() != "")), np.zeros(len(text), bool)
    ids = text.str.strip_chars(" []").str.split(",").list.eval(pl.element().str.strip_chars(" \"'"))
    return ids.list.eval(pl.element().filter(pl.element() != "")), (
        ~text.str.contains(LIST).fill_null(False)
    ).to_numpy()


def _numbers(cells: pl.Series, column: Column) -> tuple[pl.Series, np.ndarray]:
    """Numbers, null where missing, and where there is something else."""
    import polars as pl

    if cells.dtype == pl.String:
        cells = cells.str.strip_chars()
        number = cells.cast(pl.Float64, strict=False)
        missing = cells.is_null()
        if number.null_count() > missing.sum() or number.is_nan().any():
            missing = missing | cells.str.to_lowercase().is_in(list(MISSING)).fill_null(True)
    else:
        number = cells.cast(pl.Float64, strict=False)
        missing = cells.is_null() | number.is_nan().fill_null(False)
    finite = number.is_finite().fill_null(False)
    number = number.set(~finite, None) if not finite.all() else number
    return number, (~(finite | missing)).to_numpy()


def _times(cells: pl.Series, column: Column) -> tuple[pl.Series, np.ndarray]:
    """Seconds since 1970, and where there is no time, or one of the other form than the column's first."""
    import polars as pl

    if cells.dtype.is_temporal():
        seconds = cells.cast(pl.Datetime("us")).dt.epoch("us") / 1e6
        return seconds, seconds.is_null().to_numpy()
    if cells.dtype == pl.String:
        cells = cells.str.strip_chars()
    number = cells.cast(pl.Float64, strict=False)
    finite = number.is_finite().fill_null(False)
    if column.dated or (column.dated is None and not finite.all() and cells.dtype == pl.String):
        dates = _dates(cells)
        readable = dates.is_not_null() | finite
        if column.dated is None and readable.any():
            column.dated = not finite[readable.arg_max()]  # type: ignore[index]
        if column.dated:
            return dates, dates.is_null().to_numpy()
    elif finite.any():
        column.dated = False
    number = number if finite.all() else number.set(~finite, None)
    return number, (~finite).to_numpy()


def _dates(cells: pl.Series) -> pl.Series:
    """Seconds since 1970 of dates and date-times, null where there is none. A form is tried on what is left."""
    import polars as pl

    plain = cells.str.strip_suffix("Z").str.strip_suffix("+00:00").str.strip_suffix(" UTC")
    seconds = pl.Series([None], dtype=pl.Float64).new_from_index(0, len(cells))
    for form in DATE_TIMES:
        if not (left := seconds.is_null() & plain.is_not_null()).any():
            break
        part = plain.filter(left)
        dates = (
            part.str.to_datetime(form, time_unit="us", strict=False)
            if "%H" in form
            else part.str.to_date(form, strict=False).cast(pl.Datetime("us"))
        )
        if dates.null_count() < len(dates):
            seconds = seconds.scatter(left.arg_true(), dates.dt.epoch("us") / 1e6)
    return seconds


def seconds(times: pl.Series) -> pl.Series:
    """Times in seconds where all are in one unit; those of several stay, and the report of `prepare` tells them."""
    import polars as pl

    numbers = times.to_numpy()
    several = len(units_of(numbers).keys() - {"small"}) > 1
    return times if several else pl.Series(times.name, in_seconds(numbers))
