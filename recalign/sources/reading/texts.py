"""Titles, names and prose of dumps: tags and entities of web pages are taken out, and what is no title at all."""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from recalign.preparation.genres import STRONG, find_separator

if TYPE_CHECKING:
    import polars as pl

    from recalign.sources.reading.records import Records

TAG = (
    r"(?is)<script.*?</script>|<style.*?</style>|"
    r"</?(?:a|b|i|u|p|em|br|hr|ul|ol|li|tr|td|th|h[1-6]|sup|sub|div|img|span|font|small|big|table|tbody|strong|center|"
    r"script|style|noscript|iframe)\b[^<>]*/?>"
)
SCRIPT = r"(?i)<script|\bgetTime\(|\bfunction\s*\(|\bvar\s+\w+\s*=|\bdocument\.|\bwindow\.|^\s*\$\("
"""What only a script holds: titles with it were cut out of web pages in the wrong place."""


def title(cell: pl.Expr) -> pl.Expr:
    """A title without tags; empty where it is a fragment of a script.

    Args:
        cell: text, or null.
    """
    import polars as pl

    text = cell.str.replace_all(TAG, " ").str.replace_all(r"\s+", " ").str.strip_chars()
    tagged = pl.when(cell.str.contains("<", literal=True)).then(text).otherwise(cell)
    return pl.when(cell.str.contains(SCRIPT)).then(pl.lit("")).otherwise(tagged)


def names(cell: pl.Expr, beside: pl.Expr | None = None) -> pl.Expr:
    """Distinct names in the JSON of a list of whatever depth, without tags, entities and fragments of scripts.

    Args:
        cell: text of a list, or null.
        beside: one name that stands in where the list has none.
    """
    import polars as pl

    found = cell.map_elements(_names, return_dtype=pl.List(pl.String)).fill_null([])
    if beside is None:
        return found
    one = pl.concat_list(beside).list.drop_nulls()
    return pl.when(found.list.len() > 0).then(found).otherwise(one)


def prose(cell: pl.Expr) -> pl.Expr:
    """The texts in the JSON of a list, joined; text that is no list as it is; without tags and entities."""
    import polars as pl

    return cell.map_elements(_prose, return_dtype=pl.String).fill_null("")


def as_json(table: Records, column: str) -> pl.Expr:
    """A column whose lists are the text of their JSON, whatever the file that it comes from.

    Args:
        table: the file's records.
        column: of lists, or of text.
    """
    import polars as pl

    dtype, cell = table.schema[column], pl.col(column)
    if not isinstance(dtype, pl.List):
        return cell
    return pl.when(cell.is_not_null()).then(pl.struct(list=cell).struct.json_encode().str.slice(8).str.head(-1))


def separator_of(cells: pl.Series) -> str | None:
    """Return what separates names in text that may hold blanks, or None where nothing but blanks does.

    Args:
        cells: text, or null.
    """
    found = find_separator(Counter(cells.drop_nulls().to_list()))
    return found if found in (*STRONG, ",") else None


def leaves(value: Any) -> Iterator[str]:
    """Texts in a list of whatever depth: of objects the `name`, of other mappings the keys."""
    if isinstance(value, dict):
        yield from leaves(value["name"]) if "name" in value else map(str, value)
    elif isinstance(value, list):
        for part in value:
            yield from leaves(part)
    elif value is not None:
        yield str(value)


def listed(cell: str) -> Any:
    """The list or object that a text is the JSON of; else the text itself."""
    if cell[:1] in ("[", "{"):
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            pass
    return cell


_TAG, _SCRIPT = re.compile(TAG), re.compile(SCRIPT)


def _clean(text: str) -> str:
    if "<" in text or "&" in text:
        text = html.unescape(_TAG.sub(" ", text))
    return " ".join(text.split())


def _names(cell: str) -> list[str]:
    texts = [name for name in leaves(listed(cell)) if not _SCRIPT.search(name)]
    return [name for name in dict.fromkeys(map(_clean, texts)) if name]


def _prose(cell: str) -> str:
    return " ".join(filter(None, map(_clean, leaves(listed(cell)))))
