"""The catalogue as a source gives it, made fit for a language model: entities, empty titles, collisions."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recalign.errors import UserError

if TYPE_CHECKING:
    import polars as pl

LINE_BREAKS = r"\s*[\t\r\n]\s*"
UNPRINTABLE = r"\p{Cc}"
EMPTY_HINT = "Mend the source, or pass --drop-invalid to leave such items and their interactions out."


@dataclass(frozen=True)
class CleanItems:
    """The catalogue's items and what was done to get there.

    Args:
        frame: item_id, title (unique), genres, text: one row an item, in the source's order.
        aliases: raw item id -> index of its row in `frame`; several ids share a row where titles were merged.
        collisions: how many items shared a title with an earlier one, and how they were told apart.
        dropped: how many items were left out for their titles.
        mended: how many titles had line breaks or tabs, which became spaces.
    """

    frame: pl.DataFrame
    aliases: pl.DataFrame
    collisions: dict[str, int]
    dropped: int
    mended: int


def clean_items(items: pl.LazyFrame, collisions: str, drop_invalid: bool) -> CleanItems:
    """Unescape entities, turn line breaks into spaces, refuse what no model could read, give each item its own title.

    Args:
        items: as `RawData.items`.
        collisions: what becomes of items of one title: `suffix` (told apart by the source's suffix, such as the
            year, then by their ids), `merge` (one item) or `refuse`.
        drop_invalid: leave out items with empty titles or control characters instead of refusing them.

    Raises:
        UserError: an empty catalogue, an id given twice, an empty title, control characters, refused collisions.
    """
    import polars as pl

    frame = items.collect()
    if "suffix" not in frame.columns:
        frame = frame.with_columns(suffix=pl.lit(None, dtype=pl.String))
    if not frame.height:
        raise UserError("The source has no items.", "Check the path and the columns.")
    twice = frame.filter(pl.col("item_id").is_duplicated())
    if twice.height:
        raise UserError(f"The item id {twice['item_id'][0]!r} is given twice.", "Give every item one row.")
    entity = pl.col("title").str.contains("&", literal=True)
    unescaped = pl.col("title").map_elements(html.unescape, return_dtype=pl.String)
    frame = frame.with_columns(title=pl.when(entity).then(unescaped).otherwise("title").str.strip_chars())
    broken = pl.col("title").str.contains(LINE_BREAKS)
    mended = int(frame.select(broken.sum()).item())
    frame = frame.with_columns(pl.col("title").str.replace_all(LINE_BREAKS, " "))
    frame, dropped = _drop_unreadable(frame, drop_invalid)
    frame, counts = _tell_apart(frame, collisions)
    kept = frame.filter(pl.col("same_as").is_null()).select("item_id", "title", "genres", "text")
    index = kept.select("item_id", item=pl.int_range(pl.len(), dtype=pl.Int32))
    owner = frame.select(raw="item_id", item_id=pl.coalesce("same_as", "item_id"))
    return CleanItems(kept, owner.join(index, on="item_id", how="left").select("raw", "item"), counts, dropped, mended)


def _drop_unreadable(frame: pl.DataFrame, drop_invalid: bool) -> tuple[pl.DataFrame, int]:
    """Refuse (or leave out) items whose title is empty or holds control characters; says how many were left out."""
    import polars as pl

    title = pl.col("title")
    wrong = frame.with_row_index("row").filter((title == "") | title.str.contains(UNPRINTABLE))
    if not wrong.height:
        return frame, 0
    if not drop_invalid:
        first = wrong.row(0, named=True)
        problem = "is empty" if not first["title"] else "holds control characters"
        raise UserError(
            f"Item row {first['row'] + 1} (id {first['item_id']!r}): the title {first['title']!r} {problem}"
            + (f"; {wrong.height} items are like that." if wrong.height > 1 else "."),
            EMPTY_HINT,
        )
    if wrong.height == frame.height:
        raise UserError(f"All {frame.height} titles are empty or hold control characters.", "Check the title column.")
    return frame.join(wrong, on="item_id", how="anti", maintain_order="left"), wrong.height


def _tell_apart(frame: pl.DataFrame, collisions: str) -> tuple[pl.DataFrame, dict[str, int]]:
    """Make titles unique, or mark the items that are the same as an earlier one (`same_as`)."""
    import polars as pl

    total = frame.height - frame["title"].n_unique()
    counts = {"collisions": total, "told_apart_by_suffix": 0, "told_apart_by_id": 0, "merged": 0}
    frame = frame.with_columns(same_as=pl.lit(None, dtype=pl.String))
    if not total:
        return frame, counts
    if collisions == "refuse":
        first = frame.filter(pl.col("title").is_duplicated()).sort("title", maintain_order=True).head(2)
        ids = " and ".join(repr(item_id) for item_id in first["item_id"])
        raise UserError(
            f"{total} titles are taken by an earlier item, such as {first['title'][0]!r} by the items {ids}.",
            "Pass --collisions suffix or --collisions merge.",
        )
    if collisions == "merge":
        owner = pl.col("item_id").first().over("title")
        frame = frame.with_columns(same_as=pl.when(owner != pl.col("item_id")).then(owner))
        return frame, {**counts, "merged": total}
    shared = pl.col("title").is_duplicated()
    by_suffix = pl.format("{} ({})", "title", "suffix")
    frame = frame.with_columns(
        title=pl.when(shared & pl.col("suffix").is_not_null()).then(by_suffix).otherwise("title")
    )
    left = frame.height - frame["title"].n_unique()
    frame = frame.with_columns(title=pl.when(shared).then(pl.format("{} [{}]", "title", "item_id")).otherwise("title"))
    if frame["title"].n_unique() < frame.height:
        title = frame.filter(shared)["title"][0]
        raise UserError(f"The title {title!r} still belongs to two items after suffixes.", "Pass --collisions merge.")
    return frame, {**counts, "told_apart_by_suffix": total - left, "told_apart_by_id": left}
