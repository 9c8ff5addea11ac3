"""Interactions of a table, whether a row of it is an interaction or a user with lists of them."""

from __future__ import annotations

from dataclasses import dataclass

from recalign.sources.reading import Aligned, Column, Read, Records, require, typed

ROW = "row"
UNRATED = "Or ignore the column: -p rating=none."
UNTIMED = "Or let the order be the time: -p timestamp=row."


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
        UserError: missing columns, or a file that cannot be read at all.
    """
    import polars as pl

    ordered = names.timestamp == ROW
    require(table, {"user": names.user, "item": names.item})
    if names.timestamp is not None and not ordered:
        require(table, {"timestamp": names.timestamp})
    if names.rating is not None:
        require(table, {"rating": names.rating})
    listed = per_user or (per_user is None and isinstance(table.schema[names.item], pl.List))
    if listed:
        hints = {names.item: "", names.timestamp: UNTIMED, names.rating: UNRATED}
        table = Aligned(table, {name: hint for name, hint in hints.items() if name not in (None, ROW)})
    columns = {
        "user_id": Column(names.user, "id"),
        "item_id": Column(names.item, "id"),
        **({} if names.timestamp is None else {"timestamp": Column(names.timestamp, "order" if ordered else "time")}),
    }
    if names.rating is not None:
        columns["rating"] = Column(names.rating, "number", UNRATED)
    read = typed(table, columns)
    rows = read.frame if listed else read.rows  # what else a user's record holds is not of the items
    timed = read.frame if names.timestamp is not None else read.frame.with_columns(timestamp=pl.lit(0.0))
    return Read(timed, read.account, rows)


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
