"""popularity: items by their number of training interactions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recalign.api import Catalogue, Recommender, Row, TrainingData, hookimpl, read_arrays, write_arrays

FILE = "arrays.npz"


class Popularity(Recommender):
    """Scores items by their number of training interactions."""

    display_name = "popularity"

    def fit(self, data: TrainingData, seed: int) -> None:
        """Count the training interactions of each item."""
        self.counts = data.counts.astype(np.float64)  # [I]

    def scores(self, rows: Sequence[Row]) -> np.ndarray:
        """Return the score of every item for B rows: float64 [B, I]."""
        return np.tile(self.counts, (len(rows), 1))

    def save(self, folder: Path) -> None:
        """Write what `load` reads."""
        write_arrays(folder / FILE, counts=self.counts)

    def load(self, folder: Path, catalogue: Catalogue) -> None:
        """Read what `save` wrote."""
        (self.counts,) = read_arrays(folder / FILE, "counts")


@hookimpl
def recalign_recommender() -> type[Recommender]:
    """Return the plugin class to recalign."""
    return Popularity
