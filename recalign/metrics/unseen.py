"""unseen@k: share of positions that name an item without any training interaction."""

from __future__ import annotations

import numpy as np

from recalign.api import ListBatch, Metric, cut_lists, hookimpl
from recalign.metrics.shares import share_of_positions


class Unseen(Metric):
    """Positions that name an item which no training interaction names / positions; 0 for an empty list."""

    reads = frozenset({"popularity"})
    higher_is_better = None

    def score(self, lists: ListBatch) -> np.ndarray:
        """Return the values of N lists: float64 [N]."""
        heads = cut_lists(lists, self.cutoff)
        unseen = (heads.items >= 0) & (self.catalogue.popularity[heads.items] == 0)
        return share_of_positions(unseen, heads)


@hookimpl
def recalign_metric() -> type[Metric]:
    """Return the plugin class to recalign."""
    return Unseen
