"""The catalogue: every item with its id, title, genres, text and training popularity."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Catalogue:
    """All items; an item is known everywhere by its index (its row in `items.parquet`).

    Args:
        item_ids: [I] the raw ids, as strings.
        titles: [I] unique titles (what a language model reads and writes).
        genres: [I] genre names of each item, possibly none.
        texts: [I] other text, possibly empty.
        popularity: [I] int64, how many training interactions each item has.
        codes: [I] int32 numbers of each item's semantic identifier, in a dataset that has them.
    """

    item_ids: list[str]
    titles: list[str]
    genres: list[tuple[str, ...]]
    texts: list[str]
    popularity: np.ndarray
    codes: list[np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.item_ids)

    @cached_property
    def genre_names(self) -> list[str]:
        """[C] every genre of the catalogue, sorted."""
        return sorted({genre for genres in self.genres for genre in genres})

    @cached_property
    def genre_matrix(self) -> np.ndarray:
        """[I, C] float64, 1.0 where the item has the genre."""
        column = {genre: index for index, genre in enumerate(self.genre_names)}
        matrix = np.zeros((len(self), len(column)))
        for item, genres in enumerate(self.genres):
            for genre in genres:
                matrix[item, column[genre]] = 1.0
        return matrix

    @cached_property
    def index_of_id(self) -> dict[str, int]:
        """Raw item id -> index."""
        return {item_id: index for index, item_id in enumerate(self.item_ids)}

    @cached_property
    def index_of_title(self) -> dict[str, int]:
        """Title -> index."""
        return {title: index for index, title in enumerate(self.titles)}

    def describe(self, item: int) -> dict[str, Any]:
        """Return what is shown of an item: item, item_id, title, genres; none but the first where it is -1, no item."""
        if item < 0:
            return {"item": item, "item_id": None, "title": None, "genres": []}
        return {
            "item": item,
            "item_id": self.item_ids[item],
            "title": self.titles[item],
            "genres": list(self.genres[item]),
        }

    @cached_property
    def fingerprint(self) -> str:
        """Hash of ids and titles: two datasets with the same fingerprint number the same items alike."""
        digest = hashlib.sha256()
        for item_id, title in zip(self.item_ids, self.titles, strict=True):
            digest.update(f"{item_id}\x1f{title}\x1e".encode())
        return digest.hexdigest()[:16]
