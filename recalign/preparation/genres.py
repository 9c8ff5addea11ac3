"""Genres from whatever a table has in their place: lists, lists written as text, text with separators, placeholders."""

from __future__ import annotations

import ast
import json
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from recalign.preparation.forms import appearance, visible

if TYPE_CHECKING:
    import polars as pl

PLACEHOLDERS = frozenset(
    "(no genres listed)|no genres listed|no genres|no genre|n/a|#n/a|na|<na>|n.a.|none|null|nil|nan|unknown|undefined|"
    r"unspecified|not specified|not available|missing|\n|-|--|–|—|?|.".split("|")  # noqa: RUF001
)
"""What stands for "no genre", compared without regard to case, blanks and Unicode form."""

STRONG = ("|", ";", "\t", "、", "；", "，", "·", "•")  # noqa: RUF001
"""Separators that no genre's name holds."""

WEAK = (",", "/")
"""Separators that names hold at times, such as "Action/Adventure"; they count where no strong one is in use."""

RARE = 0.1
"""A strong separator in fewer cells than this share of those with a weak one is taken for an accident."""


def read_genres(cells: pl.Series, separator: str | None = None) -> tuple[pl.Series, dict[str, Any]]:
    """Turn cells into lists of genres.

    A cell may be a list, a list written as text (JSON or a Python literal, which is parsed and never evaluated; of
    objects the `name` counts, of a mapping the keys), or text with separators. Blanks around genres, empty ones,
    repeats within a cell and placeholders (`PLACEHOLDERS`) are left out. Forms of one genre that differ in nothing but
    case, blanks or Unicode form become the most frequent of them.

    Args:
        cells: [N] one cell an item: text, list, or null.
        separator: what stands between genres in text; by default it is found over all cells (`find_separator`). A
            separator that occurs nowhere makes every text one genre.

    Returns:
        [N] lists of genres, in each cell's order, and the facts: `genre_separator` (None where text is not split) and
        whether it was `genre_separator_found`; how many cells had `genre_lists` and `genre_placeholders`;
        `genre_forms` (count of forms that became another one, example); `genres_with_separators` (count of genres that
        still hold a separator, example).
    """
    import polars as pl

    keyed = pl.DataFrame({"key": cells.hash(), "cell": cells})
    distinct = keyed.group_by("key", maintain_order=True).agg(pl.col("cell").first(), rows=pl.len())
    count = distinct["rows"].to_list()
    parsed = [_listed(cell) for cell in distinct["cell"].to_list()]
    texts = Counter[str]()
    for part, rows in zip(parsed, count, strict=True):
        if isinstance(part, str):
            texts[part] += rows
    found = find_separator(texts) if separator is None else separator
    raw = [_split(part, found) if isinstance(part, str) else part for part in parsed]
    looks = _appearances({name for names in raw for name in names})
    forms: dict[str, Counter[str]] = {}
    for names, rows in zip(raw, count, strict=True):
        for name in names:
            if looks[name] and looks[name] not in PLACEHOLDERS:
                forms.setdefault(looks[name], Counter())[unicodedata.normalize("NFC", name.strip())] += rows
    chosen = {key: min(form.items(), key=lambda entry: (-entry[1], entry[0]))[0] for key, form in forms.items()}
    genres = [list(dict.fromkeys(chosen[looks[name]] for name in names if looks[name] in chosen)) for names in raw]
    placeholders = [any(looks[name] in PLACEHOLDERS for name in names) for names in raw]
    lists = distinct.select("key", genres=pl.Series(genres, dtype=pl.List(pl.String)))
    unified = [(key, other) for key, form in forms.items() for other in form if other != chosen[key]]
    held = sorted(name for name in chosen.values() if any(mark in name for mark in (*STRONG, *WEAK)))
    facts = {
        "genre_separator": found,
        "genre_separator_found": separator is None and found is not None,
        "genre_lists": sum(
            rows for part, rows in zip(parsed, count, strict=True) if not isinstance(part, str) and part
        ),
        "genre_placeholders": sum(rows for held_place, rows in zip(placeholders, count, strict=True) if held_place),
        "genre_forms": {
            "count": len(unified),
            "example": [unified[0][1], chosen[unified[0][0]]] if unified else [],
        },
        "genres_with_separators": {"count": len(held), "example": held[:1]},
    }
    return keyed.join(lists, on="key", how="left", maintain_order="left")["genres"], facts


def find_separator(texts: Counter[str]) -> str | None:
    """Find what separates genres in text, from all cells.

    The strong separator that most cells hold wins, unless a weak one is ten times as frequent; then the weak ones in
    their order, the comma first. Ties follow the order in `STRONG`.

    Args:
        texts: text of a cell -> how many cells have it.

    Returns:
        The separator, or None where no text holds one.
    """
    holding = {
        mark: sum(rows for text, rows in texts.items() if mark in text and text.lower() not in PLACEHOLDERS)
        for mark in (*STRONG, *WEAK)
    }
    strong = max(STRONG, key=lambda mark: holding[mark])
    if holding[strong] and holding[strong] >= RARE * max(holding[mark] for mark in WEAK):
        return strong
    return next((mark for mark in WEAK if holding[mark] >= RARE * max(holding.values()) and holding[mark]), None)


def _listed(cell: Any) -> list[str] | str:
    """Names where the cell is a list or a list written as text; else the text, without brackets around it."""
    if cell is None:
        return ""
    if not isinstance(cell, str):
        return list(_names(cell))
    text = cell.strip()
    if not text or text[0] not in "[({'\"":
        return text
    value = _literal(text)
    if isinstance(value, str):
        return value
    if value is not None:
        return list(_names(value))
    return text[1:-1] if text[0] + text[-1] in ("[]", "{}") else text


def _literal(text: str) -> Any:
    """The list, mapping or string that a text is as JSON or as a Python literal; None where it is neither."""
    for parse in (json.loads, ast.literal_eval):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of escapes that Python does not know
                value = parse(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        if isinstance(value, str | list | tuple | set | dict):
            return sorted(value, key=str) if isinstance(value, set) else value
    return None


def _names(value: Any) -> Iterator[str]:
    """Names in a list of whatever depth: its texts and numbers, the `name` of objects, the keys of other mappings."""
    if isinstance(value, dict):
        yield from _names(value["name"]) if "name" in value else map(str, value)
    elif isinstance(value, list | tuple | set):
        for part in value:
            yield from _names(part)
    elif value is not None:
        yield str(value)


def _split(text: str, separator: str | None) -> list[str]:
    """Parts of a text; a placeholder is not split, though it may hold the separator."""
    if separator is None or text.strip().lower() in PLACEHOLDERS:
        return [text]
    return text.split(separator)


def _appearances(names: set[str]) -> dict[str, str]:
    """What each name looks like; empty where nothing of it is visible."""
    import polars as pl

    frame = pl.DataFrame({"name": sorted(names)}, schema={"name": pl.String})
    name = pl.col("name")
    look = pl.when(visible(name)).then(appearance(name)).otherwise(pl.lit(""))
    return dict(frame.select(name, look=look).iter_rows())
