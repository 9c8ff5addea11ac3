"""dgu@k: the gap in genre exposure, how far the most and the least favoured genre lie apart (lower is better)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recalign.api import CorpusMetric, Predictions, Row, hookimpl
from recalign.metrics.recommended import recommendation_counts


class DGU(CorpusMetric):
    """max_c GU(c) - min_c GU(c) over the C genres, where GU(c) = P(c | all lists) - P(c | all histories); in [0, 2].

    P(c|.) is the genre's share of the exposure: an item with m genres adds 1/m to each of them each time that it is
    named, an item without genres adds nothing. `mgu` asks the same of each list by itself.

    Differs from the paper, which is silent: without any genre in the lists, or in the histories, that side's shares
    are 0.
    """

    paper = "DGU (Jiang et al., WWW 2024), exposure of groups of items"
    reads = frozenset({"genres", "history"})
    higher_is_better = False

    def score(self, predictions: Predictions, rows: Sequence[Row]) -> float:
        """Return the value of U lists together."""
        size = len(self.catalogue)
        histories = np.concatenate([row.history for row in rows] or [np.empty(0, dtype=np.int64)])
        shown = self._shares(recommendation_counts(predictions, self.cutoff, size))  # [C]
        consumed = self._shares(np.bincount(histories, minlength=size))
        return float(np.ptp(shown - consumed))

    def _shares(self, counts: np.ndarray) -> np.ndarray:
        """Return the genres' shares of the exposure of items that are named so often, [I]: float64 [C]."""
        genres = self.catalogue.genre_matrix
        exposure = counts @ (genres / np.maximum(genres.sum(axis=1, keepdims=True), 1.0))
        return exposure / (exposure.sum() or 1.0)


@hookimpl
def recalign_metric() -> type[CorpusMetric]:
    """Return the plugin class to recalign."""
    return DGU
