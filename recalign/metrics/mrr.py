"""mrr@k: reciprocal rank of the first relevant target."""

from __future__ import annotations

import numpy as np

from recalign.api import ListBatch, Metric, Row, hookimpl
from recalign.metrics.rule import hits


class MRR(Metric):
    """1 / position of the first relevant target, 0 where the first k positions name none.

    A row without a relevant target is left out (`defined_for`).
    """

    paper = "Voorhees, TREC-8 1999 (mean reciprocal rank)"
    reads = frozenset({"targets"})

    def score(self, lists: ListBatch) -> np.ndarray:
        """Return the values of N lists: float64 [N]."""
        relevant = hits(lists, self.cutoff, len(self.catalogue))  # [N, k]
        return np.max(relevant / np.arange(1, relevant.shape[1] + 1), axis=1, initial=0.0)

    def defined_for(self, row: Row) -> bool:
        """Return whether the row has a relevant target."""
        return bool((row.gains > 0).any())


@hookimpl
def recalign_metric() -> type[Metric]:
    """Return the plugin class to recalign."""
    return MRR
