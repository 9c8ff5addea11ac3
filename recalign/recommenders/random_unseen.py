"""random-unseen: a random pick among the items that no training interaction names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recalign.api import Catalogue, Recommender, Row, TrainingData, hookimpl, read_arrays, write_arrays

FILE = "arrays.npz"


class RandomUnseen(Recommender):
    """Picks at random among the items that no training interaction names; then, at random, among the rest."""

    display_name = "random unseen"

    def fit(self, data: TrainingData, seed: int) -> None:
        """Mark the items that are new."""
        self.new, self.seed = (data.counts == 0).astype(np.float64), seed  # [I]

    def scores(self, rows: Sequence[Row]) -> np.ndarray:
        """Return the score of every item for B rows: float64 [B, I]."""
        draws = [np.random.default_rng((self.seed, row.index)).random(len(self.new)) for row in rows]
        return np.stack(draws) + self.new

    def save(self, folder: Path) -> None:
        """Write what `load` reads."""
        write_arrays(folder / FILE, new=self.new, seed=np.array(self.seed))

    def load(self, folder: Path, catalogue: Catalogue) -> None:
        """Read what `save` wrote."""
        self.new, seed = read_arrays(folder / FILE, "new", "seed")
        self.seed = int(seed)


@hookimpl
def recalign_recommender() -> type[Recommender]:
    """Return the plugin class to recalign."""
    return RandomUnseen
