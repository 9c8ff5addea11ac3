"""Interactions of a table, whether a row of it is an interaction or a user with lists of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from recalign.api import UserError
from recalign.sources.reading import Column, Read, Records, require, typed
from recalign.sources.reading.cells import seconds

if TYPE_CHECKING:
    pass

ROW = "row"


@dataclass(frozen=True)
class Names:
    """Columns of a table.

    Args:
        user: of the user's id.
        item: of the item's id, or of the list of the user's items.
        timestamp: of the time, or `row`: the order of the rows, or of a list, is the time; None: there are no times.
        rating: of the rating, or None.
    """

    user: str
    item: str
    timestamp: str | None
    rating: str | None = None


def interactions(table: Records, names: Names, *, per_user: bool | None = None) -> Read:
    """Read the interactions of a table.

    Args:
        table: what `open_table` returned.
        names: of its columns.
        per_user: whether a row is a user with a list of items, the oldest first; where None, the type of the column
            tells. Times and ratings are then lists as well.

    Raises:
        UserError: missing columns, lists of different lengths, or a file that cannot be read at all.
    """
    import polars as pl

    ordered = names.timestamp == ROW
    require(table, {"user": names.user, "item": names.item})
    if names.timestamp is not None and not ordered:
        require(table, {"timestamp": names.timestamp})
    if names.rating is not None:
        require(table, {"rating": names.rating})
    if per_user or (per_user is None and isinstance(table.schema[names.item], pl.List)):
        return _exploded(table, names)
    columns = {
        "user_id": Column(names.user, "id"),
        "item_id": Column(names.item, "id"),
        **({} if names.timestamp is None else {"timestamp": Column(names.timestamp, "order" if ordered else "time")}),
    }
    if names.rating is not None:
        columns["rating"] = Column(names.rating, "number", "Or ignore the column: -p rating=none.")
    read = typed(table, columns)
    if names.timestamp is None:
        return Read(read.frame.with_columns(timestamp=pl.lit(0.0)), read.account, read.rows)
    return read


def in_order(reads: list[Read], names: Names) -> list[Read]:
    """Where the order of rows is the time, files follow each other.

    Args:
        reads: what `interactions` returned of each file.
        names: of their columns.
    """
    import polars as pl

    shifted, before = [], 0
    for each in reads:
        late = each.frame.with_columns(pl.col("timestamp") + before) if names.timestamp == ROW else each.frame
        shifted.append(Read(late, each.account, each.rows))
        before += each.account.records
    return shifted


def _exploded(table: Records, names: Names) -> Read:
    """A row a user becomes a row an interaction."""
    import polars as pl

    lists = {"item_id": names.item, "timestamp": names.timestamp, "rating": names.rating}
    lists = {name: column for name, column in lists.items() if column not in (None, ROW)}
    columns = {"user_id": Column(names.user, "id")}
    columns |= {name: Column(column, "list") for name, column in lists.items() if column is not None}
    read = typed(table, columns)
    frame = read.frame.collect()
    for name, column in lists.items():
        odd = frame.with_row_index("row").filter(pl.col(name).list.len() != pl.col("item_id").list.len())
        if odd.height:
            items, others = (len(odd[each][0]) for each in ("item_id", name))
            raise UserError(
                f"{table.file}: the list {column} of the user {odd['user_id'][0]!r} has {others} values, that of "
                f"{names.item} has {items}.",
                f"Mend the row, or do without the column: -p {name}={ROW if name == 'timestamp' else 'none'}.",
            )
    if "timestamp" not in lists:
        frame = frame.with_columns(timestamp=pl.int_ranges(pl.col("item_id").list.len()))
    frame = frame.explode([*dict.fromkeys([*lists, "timestamp"])]).drop_nulls("item_id")
    cells = {"item_id": pl.col("item_id").cast(pl.Categorical), "timestamp": pl.col("timestamp").cast(pl.Float64)}
    if "rating" in lists:
        cells["rating"] = pl.col("rating").cast(pl.Float64, strict=False)
    frame = frame.with_columns(**cells)
    return Read(frame.with_columns(seconds(frame["timestamp"])).lazy(), read.account, frame.lazy())
