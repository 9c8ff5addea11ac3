"""item-knn: items by their co-occurrence with the history's items in training sequences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recalign.api import Catalogue, Recommender, Row, TrainingData, cooccurrence, hookimpl, read_arrays, write_arrays
from recalign.recommenders.histories import history_weights

FILE = "arrays.npz"
WINDOW = 20  # how many steps apart two items of a sequence may be


class ItemKNN(Recommender):
    """Scores items by their cosine similarity to the history's items in the training sequences.

    Two items of one user's sequence, d <= 20 steps apart, add 1/sqrt(d) to their similarity, which is then divided by
    the root of the product of their counts; an item of the history weighs 0.8^age.
    """

    paper = "Sarwar et al., WWW 2001 (item-based neighbours); distances and ages are weighted"
    display_name = "item-kNN"

    def fit(self, data: TrainingData, seed: int) -> None:
        """Add up the co-occurrences."""
        self.similar = cooccurrence(data.users, data.items, len(data.catalogue), WINDOW, decay=0.5)  # sparse [I, I]
        self.backing = data.counts / (1e9 * max(1, len(data.items)))  # [I], where the history knows no neighbour

    def scores(self, rows: Sequence[Row]) -> np.ndarray:
        """Return the score of every item for B rows: float64 [B, I]."""
        return (history_weights(rows, len(self.backing)) @ self.similar).toarray() + self.backing

    def save(self, folder: Path) -> None:
        """Write what `load` reads."""
        similar = self.similar
        parts = {"values": similar.data, "indices": similar.indices, "bounds": similar.indptr}
        write_arrays(folder / FILE, backing=self.backing, **parts)

    def load(self, folder: Path, catalogue: Catalogue) -> None:
        """Read what `save` wrote."""
        from scipy.sparse import csr_array

        self.backing, *parts = read_arrays(folder / FILE, "backing", "values", "indices", "bounds")
        self.similar = csr_array(tuple(parts), shape=(len(catalogue), len(catalogue)))


@hookimpl
def recalign_recommender() -> type[Recommender]:
    """Return the plugin class to recalign."""
    return ItemKNN
