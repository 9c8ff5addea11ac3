"""Sources: from files to raw interactions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from recalign.api.base import Plugin

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class RawData:
    """Raw interactions, as polars lazy frames.

    Args:
        events: user_id (str), item_id (str), timestamp (float64), rating (float64, null where there is none).
        items: item_id (str), title (str); optionally genres (list[str], or text as `recalign.data.genres` reads it),
            text (str) and suffix (str, such as a year), which tells apart items of the same title.
        windows: ready-made windows by split, where the source brings its own: user_id (str), item_ids (list[str],
            oldest first, the last `targets` are what is predicted), timestamp (float64). `events` is then None.
        items_per_event: `items` has a row an interaction, not one an item: values that differ within an item are told,
            not refused.
        genre_separator: between genres in text; found over all items where None.
    """

    items: pl.LazyFrame
    events: pl.LazyFrame | None = None
    windows: dict[str, pl.LazyFrame] | None = None
    items_per_event: bool = False
    genre_separator: str | None = None


class Source(Plugin, ABC):
    """Reads raw interactions.

    Attributes:
        needs_path: whether `prepare SOURCE PATH` must name a path.
        suggests: options of `prepare` that fit this source; what the user gives goes first.
    """

    needs_path: ClassVar[bool] = True
    suggests: ClassVar[dict[str, Any]] = {}

    def files(self, path: Path) -> list[Path]:
        """Files that `read` reads: their content decides whether a finished run still fits.

        Raises:
            UserError: the path or a file is missing.
        """
        return [path]

    @abstractmethod
    def read(self, path: Path | None, seed: int) -> RawData:
        """Read (or make) the raw data.

        Raises:
            UserError: missing files or columns, unparseable rows (file and row number named).
        """
