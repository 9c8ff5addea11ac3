"""gini@k: how unequally often items are recommended (one value per evaluation; lower is better)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recalign.api import CorpusMetric, Predictions, Row, hookimpl
from recalign.metrics.recommended import recommendation_counts


class Gini(CorpusMetric):
    """Gini index of the items' numbers of recommendations, over the whole catalogue.

    0 where all items are recommended alike, near 1 where all recommendations are one item; 0 without any.
    """

    paper = "Fleder & Hosanagar, Management Science 2009"
    higher_is_better = False

    def score(self, predictions: Predictions, rows: Sequence[Row]) -> float:
        """Return the value of U lists together."""
        counts = np.sort(recommendation_counts(predictions, self.cutoff, len(self.catalogue)))
        ranks, total = np.arange(1, len(counts) + 1), counts.sum()
        if not total:
            return 0.0
        return float(2 * (ranks * counts).sum() / (len(counts) * total) - (len(counts) + 1) / len(counts))


@hookimpl
def recalign_metric() -> type[CorpusMetric]:
    """Return the plugin class to recalign."""
    return Gini
