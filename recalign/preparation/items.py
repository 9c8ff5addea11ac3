"""The catalogue as a source gives it, made fit for a language model: entities, empty titles, collisions."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recalign.errors import UserError, shortened
from recalign.preparation.forms import appearance, lookalikes, visible
from recalign.preparation.mentions import one_row_each

if TYPE_CHECKING:
    import polars as pl

LINE_BREAKS = r"\s*[\t\r\n]\s*"
UNPRINTABLE = r"\p{Cc}"
LONGEST_TITLE = 5000
"""Characters of a title; a longer one is a text that stands in the wrong column, and no prompt has room for it."""
EMPTY_HINT = "Mend the source, or pass --drop-invalid to leave such items and their interactions out."


@dataclass(frozen=True)
class CleanItems:
    """The catalogue's items and what was done to get there.

    Args:
        frame: item_id, title (unique), genres, text: one row an item, in the source's order.
        aliases: raw item id -> index of its row in `frame`; several ids share a row where titles were merged.
        facts: what the report should say: `collisions` (items whose title looks like an earlier one's, and how they
            were told apart), `lookalike_titles` (those whose title is not the same, character by character),
            `lookalike_item_ids`, `dropped_items`, `titles_mended` (line breaks and tabs became spaces), and the facts
            of `one_row_each`.
    """

    frame: pl.DataFrame
    aliases: pl.DataFrame
    facts: dict[str, Any]


def clean_items(
    items: pl.LazyFrame,
    collisions: str,
    drop_invalid: bool,
    *,
    per_event: bool = False,
    genre_separator: str | None = None,
) -> CleanItems:
    """Give each item one row and a title of its own that a model can read.

    Entities are unescaped, titles are brought to Unicode's composed form (NFC), blanks at the ends are cut, line breaks
    and tabs become spaces. Titles of which nothing is visible are refused like empty ones.

    Args:
        items: as `RawData.items`.
        collisions: what becomes of items whose titles look alike (see `appearance`): `suffix` (told apart by the
            source's suffix, such as the year, then by their ids), `merge` (one item) or `refuse`.
        drop_invalid: leave out items with empty titles or control characters instead of refusing them.
        per_event: see `one_row_each`.
        genre_separator: see `one_row_each`.

    Raises:
        UserError: an empty catalogue, rows of one item that contradict each other, an empty title, control characters,
            refused collisions.
    """
    import polars as pl

    frame, facts = one_row_each(items, per_event=per_event, drop_invalid=drop_invalid, genre_separator=genre_separator)
    if not frame.height:
        raise UserError("The source has no items.", "Check the path and the columns.")
    entity = pl.col("title").str.contains("&", literal=True)
    unescaped = pl.col("title").map_elements(html.unescape, return_dtype=pl.String)
    composed = pl.when(entity).then(unescaped).otherwise("title").str.normalize("NFC")
    frame = frame.with_columns(title=composed.str.strip_chars())
    broken = pl.col("title").str.contains(LINE_BREAKS)
    mended = int(frame.select(broken.sum()).item())
    frame = frame.with_columns(pl.col("title").str.replace_all(LINE_BREAKS, " "))
    frame, dropped = _drop_unreadable(frame, drop_invalid)
    frame, counts = _tell_apart(frame, collisions)
    kept = frame.filter(pl.col("same_as").is_null()).select("item_id", "title", "genres", "text")
    index = kept.select("item_id", item=pl.int_range(pl.len(), dtype=pl.Int32))
    owner = frame.select(raw="item_id", item_id=pl.coalesce("same_as", "item_id"))
    aliases = owner.join(index, on="item_id", how="left", maintain_order="left").select("raw", "item")
    told = {"lookalike_item_ids": lookalikes(frame["item_id"]), "dropped_items": dropped, "titles_mended": mended}
    return CleanItems(kept, aliases, {**facts, **counts, **told})


def _drop_unreadable(frame: pl.DataFrame, drop_invalid: bool) -> tuple[pl.DataFrame, int]:
    """Refuse (or leave out) items whose title is empty, unreadable or too long; says how many were so."""
    import polars as pl

    title = pl.col("title")
    problem = (
        pl.when(title == "")
        .then(pl.lit("is empty"))
        .when(title.str.contains(UNPRINTABLE))
        .then(pl.lit("holds control characters"))
        .when(title.str.len_chars() > LONGEST_TITLE)
        .then(pl.lit(f"has more than {LONGEST_TITLE:,} characters"))
        .when(~visible(title))
        .then(pl.lit("has no visible character"))
    )
    wrong = frame.with_columns(problem=problem).drop_nulls("problem")
    if not wrong.height:
        return frame, 0
    if not drop_invalid:
        first = wrong.row(0, named=True)
        shown = shortened(repr(first["title"]), 80)
        raise UserError(
            f"Item row {first['row']} (id {first['item_id']!r}): the title {shown} {first['problem']}"
            + (f"; {wrong.height} items are like that." if wrong.height > 1 else "."),
            EMPTY_HINT,
        )
    if wrong.height == frame.height:
        raise UserError(
            f"All {frame.height} titles are empty, too long or hold control characters.", "Check the title column."
        )
    return frame.join(wrong, on="item_id", how="anti", maintain_order="left"), wrong.height


def _tell_apart(frame: pl.DataFrame, collisions: str) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Make titles unique, or mark the items that are the same as an earlier one (`same_as`)."""
    import polars as pl

    key = appearance(pl.col("title"))
    frame = frame.with_columns(same_as=pl.lit(None, dtype=pl.String), key=key)
    total = frame.height - frame["key"].n_unique()
    differing = frame.unique("title", keep="first").filter(pl.col("key").is_duplicated()).sort("key", "row")
    counts = {
        "collisions": total,
        "lookalike_titles": {
            "count": frame["title"].n_unique() - frame["key"].n_unique(),
            "example": differing["title"].head(2).to_list(),
        },
        "told_apart_by_suffix": 0,
        "told_apart_by_id": 0,
        "merged": 0,
    }
    if not total:
        return frame, counts
    if collisions == "refuse":
        first = frame.filter(pl.col("key").is_duplicated()).sort("key", maintain_order=True).head(2)
        ids = " and ".join(repr(item_id) for item_id in first["item_id"])
        alike = "" if first["title"].n_unique() == 1 else f" ({' and '.join(map(ascii, first['title']))} look alike)"
        raise UserError(
            f"{total} titles are taken by an earlier item, such as {first['title'][0]!r} by the items {ids}{alike}.",
            "Pass --collisions suffix or --collisions merge.",
        )
    if collisions == "merge":
        owner = pl.col("item_id").first().over("key")
        frame = frame.with_columns(same_as=pl.when(owner != pl.col("item_id")).then(owner))
        return frame, {**counts, "merged": total}
    by_suffix = pl.when(pl.col("suffix").is_not_null()).then(pl.format("{} ({})", "title", "suffix"))
    shared = pl.col("key").is_duplicated()
    frame = frame.with_columns(title=pl.when(shared).then(pl.coalesce(by_suffix, "title")).otherwise("title"))
    frame = frame.with_columns(key=key)
    left = frame.height - frame["key"].n_unique()
    by_id = pl.format("{} [{}]", "title", "item_id")
    frame = frame.with_columns(title=pl.when(shared).then(by_id).otherwise("title"))
    if frame["title"].n_unique() < frame.height:
        title = frame.filter(pl.col("title").is_duplicated())["title"][0]
        raise UserError(f"The title {title!r} still belongs to two items after suffixes.", "Pass --collisions merge.")
    return frame, {**counts, "told_apart_by_suffix": total - left, "told_apart_by_id": left}
