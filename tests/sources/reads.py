"""What a source's items become, for tests of sources."""

from __future__ import annotations

from recalign.api import RawData
from recalign.preparation.mentions import one_row_each


def items_of(raw: RawData) -> list[dict[str, object]]:
    """The items of a source, one row each."""
    items, _ = one_row_each(
        raw.items, per_event=raw.items_per_event, drop_invalid=False, genre_separator=raw.genre_separator
    )
    return items.drop("row").to_dicts()
