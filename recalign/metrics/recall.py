"""recall@k: share of the relevant targets that the first k positions name."""

from __future__ import annotations

import numpy as np

from recalign.api import ListBatch, Metric, Relevance, Row, cut_lists, distinct_rows, hookimpl


class Recall(Metric):
    """Relevant targets among the first k positions / all distinct relevant targets (gain above zero).

    Repeated items count once; a row without a relevant target is left out (`defined_for`).
    """

    paper = "BLADE (Chen et al., SIGIR 2026), section 5.1"
    reads = frozenset({"targets"})

    def score(self, lists: ListBatch) -> np.ndarray:
        """Return the values of N lists: float64 [N]."""
        rows, index = distinct_rows(lists.rows)
        relevance = Relevance.of(rows, len(self.catalogue))
        found = (relevance.at(cut_lists(lists, self.cutoff), index) > 0).sum(axis=1)  # [N]
        wanted = np.bincount(relevance.owners, weights=relevance.gains > 0, minlength=relevance.count)[index]  # [N]
        return np.divide(found, wanted, out=np.zeros(len(lists)), where=wanted > 0)

    def defined_for(self, row: Row) -> bool:
        """Return whether the row has a relevant target."""
        return bool((row.gains > 0).any())


@hookimpl
def recalign_metric() -> type[Metric]:
    """Return the plugin class to recalign."""
    return Recall
