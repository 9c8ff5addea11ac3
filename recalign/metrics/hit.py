"""hit@k: whether the first k positions name a relevant target."""

from __future__ import annotations

import numpy as np

from recalign.api import ListBatch, Metric, Row, hookimpl
from recalign.metrics.rule import hits


class Hit(Metric):
    """1 where the first k positions name a relevant target, else 0; a row without one is left out (`defined_for`)."""

    paper = "Deshpande & Karypis, TOIS 2004 (hit rate)"
    reads = frozenset({"targets"})

    def score(self, lists: ListBatch) -> np.ndarray:
        """Return the values of N lists: float64 [N]."""
        return hits(lists, self.cutoff, len(self.catalogue)).any(axis=1).astype(np.float64)

    def defined_for(self, row: Row) -> bool:
        """Return whether the row has a relevant target."""
        return bool((row.gains > 0).any())


@hookimpl
def recalign_metric() -> type[Metric]:
    """Return the plugin class to recalign."""
    return Hit
