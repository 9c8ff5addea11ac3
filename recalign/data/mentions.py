"""One row an item, from a table that may name it several times: the best value of each column, and what differs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recalign.data.forms import appearance, visible
from recalign.data.genres import read_genres
from recalign.errors import UserError

if TYPE_CHECKING:
    import polars as pl

COLUMNS = ("title", "genres", "text", "suffix")


def one_row_each(
    items: pl.LazyFrame, *, per_event: bool, drop_invalid: bool, genre_separator: str | None
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Merge the rows of each item: every column takes the first value of which something is visible.

    Args:
        items: as `RawData.items`.
        per_event: the table names an item once an interaction, so that rows of one item are expected and values that
            differ are told; else rows that contradict each other are refused.
        drop_invalid: take the first value where rows contradict each other.
        genre_separator: between genres in text; found where None.

    Returns:
        The items in the order of their first mention, with `row` (of that mention, from 1), and the facts:
        `item_rows_repeated` (rows beyond the first of their item), `items_differing` (column -> how many items have
        several values, in which share of the items, and an example), and those of `read_genres`.

    Raises:
        UserError: rows of one item contradict each other.
    """
    import polars as pl

    if "suffix" not in items.collect_schema():
        items = items.with_columns(suffix=pl.lit(None, dtype=pl.String))
    rows = (  # equal rows are one before anything is looked at: a log of millions names few items
        items.select("item_id", *COLUMNS)
        .with_row_index("row", offset=1)
        .group_by("item_id", *COLUMNS)
        .agg(pl.col("row").min(), mentions=pl.len())
        .sort("row")
        .collect(engine="streaming")
    )
    genres, facts = read_genres(rows["genres"], genre_separator)
    rows = rows.with_columns(genres, pl.col("title", "text").fill_null(""))
    first = rows.unique("item_id", keep="first", maintain_order=True).drop("mentions")
    total = int(rows["mentions"].sum())
    facts |= {"item_rows_repeated": 0 if per_event else total - first.height, "items_differing": {}}
    if first.height == rows.height:
        return first, facts
    present = {
        name: pl.when(pl.col(name).list.len() > 0 if name == "genres" else visible(pl.col(name))).then(pl.col(name))
        for name in COLUMNS
    }
    best = (
        rows.with_columns(**present)
        .group_by("item_id", maintain_order=True)
        .agg(pl.col(name).drop_nulls().first() for name in COLUMNS)
    )
    merged = first.select("item_id", "row", *(pl.col(name).alias(f"{name}_first") for name in COLUMNS))
    merged = merged.join(best, on="item_id", how="left", maintain_order="left").select(
        "item_id", "row", *(pl.coalesce(name, f"{name}_first").alias(name) for name in COLUMNS)
    )
    several = rows.filter(pl.col("item_id").is_duplicated()).with_columns(**present)
    for name in COLUMNS:
        told = _differing(several, name, first.height)
        if not told:
            continue
        if not per_event and not drop_invalid:
            (one, place), (other, where) = told["example"]["values"]
            more = f"; {told['items']} items are like that" if told["items"] > 1 else ""
            raise UserError(
                f"The item {told['example']['item_id']!r} is given twice, and its {name} differs: {one!r} in item row "
                f"{place}, {other!r} in row {where}{more}.",
                "Give every item one row, or pass --drop-invalid to take what stands first.",
            )
        facts["items_differing"][name] = told
    return merged, facts


def _differing(several: pl.DataFrame, name: str, items: int) -> dict[str, Any] | None:
    """How many items have values of a column that do not look alike, and the first of them; None where none has.

    Args:
        several: rows of the items that have more than one, with nulls where nothing is visible.
        name: of the column.
        items: how many items there are.
    """
    import polars as pl

    key = pl.col(name).list.sort().list.join("\x1f") if name == "genres" else appearance(pl.col(name))
    values = several.drop_nulls(name).select("item_id", "row", "mentions", value=name, key=key)
    other = values.filter(pl.col("key") != pl.col("key").first().over("item_id"))
    if not other.height:
        return None
    item_id, where, value = other.select("item_id", "row", "value").row(0)
    place, first = values.filter(pl.col("item_id") == item_id).select("row", "value").row(0)
    count = other["item_id"].n_unique()
    return {
        "items": count,
        "share": count / items,
        "mentions": int(other["mentions"].sum()),
        "example": {"item_id": item_id, "values": [[first, place], [value, where]]},
    }
