"""One row an item, from a table that may name it several times: which value of each column counts, and what differs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recalign.errors import UserError
from recalign.preparation.forms import SameId, appearance, one_id, visible
from recalign.preparation.genres import PLACEHOLDERS, read_genres

if TYPE_CHECKING:
    import polars as pl

COLUMNS = ("title", "genres", "text", "suffix")


def one_row_each(
    items: pl.LazyFrame,
    *,
    per_event: bool,
    drop_invalid: bool,
    genre_separator: str | None,
    same_ids: SameId = "exact",
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Merge the rows of each item: every column takes a value that says something.

    A value says something where a character of it is visible and, among genres, where it is no placeholder. Of several
    values a table of items counts the first, one of interactions the most frequent (of equally frequent ones the first
    in the order of their characters), so that the order of interactions decides nothing. What is held in memory grows
    with the number of items, not with that of rows.

    Args:
        items: as `RawData.items`.
        per_event: the table names an item once an interaction, so that rows of one item are expected and values that
            differ are told; else rows that contradict each other are refused.
        drop_invalid: take the first value where rows contradict each other.
        genre_separator: between genres in text; found where None.
        same_ids: which ids are one.

    Returns:
        The items in the order of their first mention or, where `per_event`, of their ids, with `row` (of the first
        mention, from 1), and the facts: `item_rows_repeated` (rows beyond the first of their item), `items_completed`
        (column -> items whose first mention lacks what a later one says), `items_differing` (column -> what
        `_differing` tells), `item_ids_joined` (ids that were taken for another one), and those of `read_genres`.

    Raises:
        UserError: rows of one item contradict each other.
    """
    import polars as pl

    known = items.collect_schema()
    missing = {name: pl.lit(None, dtype=pl.String) for name in COLUMNS if name not in known}
    rows = items.with_columns(**missing).select("item_id", *COLUMNS).with_row_index("row", offset=1)
    joined = 0
    if same_ids != "exact":
        ids = rows.select(pl.col("item_id").unique()).collect(engine="streaming")["item_id"]
        standing = one_id(ids, same_ids)
        joined = len(ids) - standing.n_unique()
        rows = rows.with_columns(pl.col("item_id").replace_strict(ids, standing, return_dtype=pl.String))
    said = rows.with_columns(
        first_title="title", first_genres="genres", **{name: _saying(rows, name) for name in COLUMNS}
    )
    merged = _merge(said).sort("item_id" if per_event else "row")
    several = {name: merged.filter(f"{name}_hash")["item_id"] for name in COLUMNS}
    if per_event:
        for name in COLUMNS:
            if len(several[name]):
                merged = merged.update(_most_frequent(said, name, several[name]), on="item_id", how="left")
    genres, facts = read_genres(merged.select(pl.coalesce("genres", "first_genres")).to_series(), genre_separator)
    repeated = int(merged["mentions"].sum()) - merged.height
    lacking = {name: int(merged[f"{name}_later"].sum()) for name in COLUMNS}
    facts |= {
        "item_rows_repeated": 0 if per_event else repeated,
        "items_completed": {name: count for name, count in lacking.items() if count},
        "item_ids_joined": joined,
        "items_differing": {},
    }
    for name in COLUMNS:
        told = _differing(said, name, several[name], facts["genre_separator"]) if len(several[name]) else None
        if told is None:
            continue
        if not per_event and not drop_invalid:
            raise _contradiction(name, told)
        counts = "the most frequent" if per_event else "the first"
        facts["items_differing"][name] = {**told, "share": told["items"] / merged.height, "counts": counts}
    texts = {"title": pl.coalesce("title", "first_title", pl.lit("")), "text": pl.col("text").fill_null("")}
    return merged.with_columns(genres=genres, **texts).select("item_id", "row", *COLUMNS), facts


def _merge(said: pl.LazyFrame) -> pl.DataFrame:
    """One row an item: each column's first value, whether others follow (`_hash`) and whether it is late (`_later`)."""
    import polars as pl

    hashes = {f"{name}_hash": pl.when(pl.col(name).is_not_null()).then(pl.col(name).hash()) for name in COLUMNS}
    return (
        said.with_columns(**hashes, **{f"{name}_none": pl.col(name).is_null() for name in COLUMNS})
        .group_by("item_id")
        .agg(
            pl.col("row").min(),
            pl.col("first_title", "first_genres").first(),
            *(pl.col(name).drop_nulls().first() for name in COLUMNS),
            *((pl.col(code).min() != pl.col(code).max()).fill_null(False) for code in hashes),
            *(
                (pl.col(f"{name}_none").first() & ~pl.col(f"{name}_none").all()).alias(f"{name}_later")
                for name in COLUMNS
            ),
            mentions=pl.len(),
        )
        .collect(engine="streaming")
    )


def _most_frequent(said: pl.LazyFrame, name: str, several: pl.Series) -> pl.DataFrame:
    """The value of a column that most rows of an item have, and of equally frequent ones the first by its characters.

    Args:
        said: all rows, with nulls where a cell says nothing.
        name: of the column.
        several: ids of the items with more than one value.
    """
    import polars as pl

    cells = said.filter(pl.col("item_id").is_in(several.implode()), pl.col(name).is_not_null())
    cells = cells.select("item_id", name, code=pl.col(name).hash())
    counted = cells.group_by("item_id", "code").agg(rows=pl.len()).collect(engine="streaming")
    best = counted.filter(pl.col("rows") == pl.col("rows").max().over("item_id")).select("item_id", "code")
    cell = pl.col(name)
    letters = cell.list.join("\x1f") if isinstance(cells.collect_schema()[name], pl.List) else cell
    return (
        cells.join(best.lazy(), on=["item_id", "code"], how="semi")
        .group_by("item_id")
        .agg(cell.sort_by(letters).first())
        .collect(engine="streaming")
    )


def _saying(rows: pl.LazyFrame, name: str) -> pl.Expr:
    """A column, with nulls where a cell says nothing."""
    import polars as pl

    cell, dtype = pl.col(name), rows.collect_schema()[name]
    if isinstance(dtype, pl.List):
        return pl.when(cell.list.len() > 0).then(cell)
    if dtype != pl.String:
        return cell
    says = visible(cell)
    if name == "genres":
        says &= ~cell.str.strip_chars().str.to_lowercase().is_in(sorted(PLACEHOLDERS))
    return pl.when(says).then(cell)


def _differing(said: pl.LazyFrame, name: str, several: pl.Series, genre_separator: str | None) -> dict[str, Any] | None:
    """Say which items have values of a column that differ in what one sees; None where none has.

    Args:
        said: all rows, with nulls where a cell says nothing.
        name: of the column.
        several: ids of the items with more than one value.
        genre_separator: between genres in text.

    Returns:
        items: how many there are; mentions: how many rows have another value than the first one of their item;
        example: item_id, and two values of it with their rows.
    """
    import polars as pl

    cells = said.filter(pl.col("item_id").is_in(several.implode()), pl.col(name).is_not_null())
    cells = cells.select("item_id", "row", cell=name, code=pl.col(name).hash())
    if name == "genres":
        distinct = cells.select("code", "cell").unique("code").collect(engine="streaming")
        genres, _ = read_genres(distinct["cell"], genre_separator)
        keys = distinct.select("code", key=genres.list.sort().list.join("\x1f").hash())
        cells = cells.join(keys.lazy(), on="code", how="left")
    elif name == "text":  # is long: whether two texts look alike is not worth the time
        cells = cells.with_columns(key=pl.col("cell").str.strip_chars().hash())
    else:
        cells = cells.with_columns(key=appearance(pl.col("cell")).hash())
    values = cells.group_by("item_id", "key").agg(pl.col("row").min(), rows=pl.len()).sort("row")
    others = (
        values.with_columns(first=pl.col("row").first().over("item_id"))
        .filter(pl.col("row") != pl.col("first"))
        .collect(engine="streaming")
    )
    if not others.height:
        return None
    item_id, first, other = others.select("item_id", "first", "row").row(0)
    shown = cells.filter(pl.col("row").is_in([first, other])).select("cell", "row").sort("row").collect()
    return {
        "items": others["item_id"].n_unique(),
        "mentions": int(others["rows"].sum()),
        "example": {"item_id": item_id, "values": [list(pair) for pair in shown.iter_rows()]},
    }


def _contradiction(name: str, told: dict[str, Any]) -> UserError:
    """Name an item whose rows contradict each other."""
    (one, place), (other, where) = told["example"]["values"]
    more = f"; {told['items']} items are like that" if told["items"] > 1 else ""
    return UserError(
        f"The item {told['example']['item_id']!r} is given twice, and its {name} differs: {one!r} in item row {place}, "
        f"{other!r} in row {where}{more}.",
        "Give every item one row, or pass --drop-invalid to take what stands first.",
    )
