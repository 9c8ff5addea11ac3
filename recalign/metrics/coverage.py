"""coverage@k: share of the catalogue that is recommended to anyone (one value per evaluation)."""

from __future__ import annotations

from collections.abc import Sequence

from recalign.api import CorpusMetric, Predictions, Row, hookimpl
from recalign.metrics.recommended import recommendation_counts


class Coverage(CorpusMetric):
    """Items that some list names / items of the catalogue."""

    paper = "Ge et al., RecSys 2010 (catalogue coverage)"

    def score(self, predictions: Predictions, rows: Sequence[Row]) -> float:
        """Return the value of U lists together."""
        counts = recommendation_counts(predictions, self.cutoff, len(self.catalogue))
        return float((counts > 0).mean())


@hookimpl
def recalign_metric() -> type[CorpusMetric]:
    """Return the plugin class to recalign."""
    return Coverage
