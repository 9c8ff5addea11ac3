"""Unicode forms of titles, genres and ids: what of a text is visible, and which texts look alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import polars as pl

SameId = Literal["exact", "blanks", "case"]

IGNORED = r"\p{Default_Ignorable_Code_Point}\p{Cf}"
"""Characters without a glyph: format characters (zero-width ones, soft hyphens), fillers, variation selectors."""

BLANKS = r"\s\p{Z}\u2800"
"""Blanks of all kinds, the Braille one included."""


def visible(text: pl.Expr) -> pl.Expr:
    """Whether a text has any character that one can see; null where there is no text."""
    return text.str.contains(f"[^{IGNORED}{BLANKS}]")


def shown(text: pl.Expr) -> pl.Expr:
    """A key that is equal for texts whose compatibility forms (NFKC) differ in blanks and invisible signs alone."""
    plain = text.str.normalize("NFKC").str.replace_all(f"[{IGNORED}]+", "")
    return plain.str.replace_all(f"[{BLANKS}]+", " ").str.strip_chars(" ")


def appearance(text: pl.Expr) -> pl.Expr:
    """A key that is equal for texts that look alike.

    Texts look alike where their Unicode compatibility forms (NFKC) differ in nothing but case, blanks and characters
    without a glyph.
    """
    return shown(text).str.to_lowercase()


ID_KEYS: dict[SameId, Callable[[pl.Expr], pl.Expr]] = {"exact": lambda text: text, "blanks": shown, "case": appearance}
"""Which ids are one: what two of them must share."""


def one_id(ids: pl.Series, same: SameId) -> pl.Series:
    """The id that stands for each id: of those that are one, the first in the order of their characters.

    Args:
        ids: [N] distinct ids.
        same: see `ID_KEYS`.
    """
    import polars as pl

    frame = ids.alias("id").to_frame().with_columns(key=ID_KEYS[same](pl.col("id")))
    return frame.select(pl.col("id").min().over("key")).to_series()


def lookalikes(ids: pl.Series) -> dict[str, object]:
    """Ids that differ from another one by case, blanks or Unicode form alone.

    Args:
        ids: distinct ids.

    Returns:
        count: how many ids there are that look like another one; example: two of them, or none; by_case: how many of
        them differ from every other one in case.
    """
    import polars as pl

    frame = ids.alias("id").to_frame().with_columns(key=appearance(pl.col("id")))
    alike = frame.filter(pl.col("key").is_duplicated()).sort("key", "id")
    by_case = alike.filter(~shown(pl.col("id")).is_duplicated()).height
    return {"count": alike.height, "example": alike["id"].head(2).to_list(), "by_case": by_case}
