"""What a source reads, for tests of sources."""

from __future__ import annotations

from recalign.api import RawData
from recalign.plugins import registry
from recalign.preparation.mentions import one_row_each


def items_of(raw: RawData) -> list[dict[str, object]]:
    """The items of a source, one row each."""
    items, _ = one_row_each(
        raw.items, per_event=raw.items_per_event, drop_invalid=raw.partial, genre_separator=raw.genre_separator
    )
    return items.drop("row").to_dicts()


def read_dump(source, path, **params):
    """Items by id, the first interaction, and all of what a source reads."""
    raw = registry.create("source", source, params).read(path, 0)
    first = None
    if raw.events is not None:
        row = raw.events.head(1).collect().cast({"user_id": str, "item_id": str}).to_dicts()[0]
        first = tuple(row.values())
    return {item["item_id"]: item for item in items_of(raw)}, first, raw
