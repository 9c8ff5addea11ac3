"""Unicode forms of titles, genres and ids: what of a text is visible, and which texts look alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

IGNORED = r"\p{Default_Ignorable_Code_Point}\p{Cf}"
"""Characters without a glyph: format characters (zero-width ones, soft hyphens), fillers, variation selectors."""

BLANKS = r"\s\p{Z}\u2800"
"""Blanks of all kinds, the Braille one included."""


def visible(text: pl.Expr) -> pl.Expr:
    """Whether a text has any character that one can see; null where there is no text."""
    return text.str.contains(f"[^{IGNORED}{BLANKS}]")


def appearance(text: pl.Expr) -> pl.Expr:
    """A key that is equal for texts that look alike.

    Texts look alike where their Unicode compatibility forms (NFKC) differ in nothing but case, blanks and characters
    without a glyph.
    """
    shown = text.str.normalize("NFKC").str.replace_all(f"[{IGNORED}]+", "").str.to_lowercase()
    return shown.str.replace_all(f"[{BLANKS}]+", " ").str.strip_chars(" ")


def lookalikes(ids: pl.Series) -> dict[str, object]:
    """Ids that differ from another one by case, blanks or Unicode form alone.

    Args:
        ids: distinct ids.

    Returns:
        count: how many ids there are that look like another one; example: two of them, or none.
    """
    import polars as pl

    frame = ids.alias("id").to_frame().with_columns(key=appearance(pl.col("id")))
    alike = frame.filter(pl.col("key").is_duplicated()).sort("key", "id")
    return {"count": alike.height, "example": alike["id"].head(2).to_list()}
