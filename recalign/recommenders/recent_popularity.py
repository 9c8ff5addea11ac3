"""recent-popularity: items by how often they were consumed shortly before the row's time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recalign.api import Catalogue, Recommender, Row, TrainingData, hookimpl, read_arrays, write_arrays

FILE = "arrays.npz"
RECENT = 5000  # how many training interactions before the row's time count


class RecentPopularity(Recommender):
    """Scores items by how many of the last 5000 training interactions before the row's time were theirs."""

    display_name = "recent popularity"

    def fit(self, data: TrainingData, seed: int) -> None:
        """Order the training interactions by time."""
        order = np.argsort(data.timestamps, kind="stable")
        self.items, self.times, self.size = data.items[order], data.timestamps[order], len(data.catalogue)

    def scores(self, rows: Sequence[Row]) -> np.ndarray:
        """Return the score of every item for B rows: float64 [B, I]."""
        total = np.bincount(self.items, minlength=self.size) / max(1, len(self.items))  # below 1: breaks ties only
        ends = np.maximum(np.searchsorted(self.times, [row.timestamp for row in rows]), min(RECENT, len(self.items)))
        distinct, inverse = np.unique(ends, return_inverse=True)
        windows = [self.items[max(0, end - RECENT) : end] for end in distinct]
        return np.stack([np.bincount(window, minlength=self.size) + total for window in windows])[inverse]

    def save(self, folder: Path) -> None:
        """Write what `load` reads."""
        write_arrays(folder / FILE, items=self.items, times=self.times)

    def load(self, folder: Path, catalogue: Catalogue) -> None:
        """Read what `save` wrote."""
        self.items, self.times = read_arrays(folder / FILE, "items", "times")
        self.size = len(catalogue)


@hookimpl
def recalign_recommender() -> type[Recommender]:
    """Return the plugin class to recalign."""
    return RecentPopularity
