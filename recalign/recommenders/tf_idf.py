"""tf-idf: items by the words that their titles share with the history's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recalign.api import Catalogue, Recommender, Row, TrainingData, hookimpl, tfidf
from recalign.recommenders.histories import history_weights


class TfIdf(Recommender):
    """Scores items by the cosine of their title's TF-IDF vector with the history's, whose items weigh 0.8^age."""

    display_name = "TF-IDF of titles"

    def fit(self, data: TrainingData, seed: int) -> None:
        """Turn the titles into vectors; interactions do not matter."""
        self.vectors = tfidf(data.catalogue.titles)  # sparse [I, words]

    def scores(self, rows: Sequence[Row]) -> np.ndarray:
        """Return the score of every item for B rows: float64 [B, I]."""
        histories = history_weights(rows, self.vectors.shape[0])
        return ((histories @ self.vectors) @ self.vectors.T).toarray()

    def save(self, folder: Path) -> None:
        """Write nothing: the titles are in the catalogue."""

    def load(self, folder: Path, catalogue: Catalogue) -> None:
        """Turn the catalogue's titles into vectors."""
        self.vectors = tfidf(catalogue.titles)


@hookimpl
def recalign_recommender() -> type[Recommender]:
    """Return the plugin class to recalign."""
    return TfIdf
