"""repeats@k: share of positions that repeat an item named before."""

from __future__ import annotations

import numpy as np

from recalign.api import ListBatch, Metric, cut_lists, hookimpl
from recalign.metrics.shares import share_of_positions


class Repeats(Metric):
    """Positions that name an item which the list has named before / positions; 0 for an empty list."""

    higher_is_better = False

    def score(self, lists: ListBatch) -> np.ndarray:
        """Return the values of N lists: float64 [N]."""
        heads = cut_lists(lists, self.cutoff)
        return share_of_positions((heads.items >= 0) & ~heads.counted, heads)


@hookimpl
def recalign_metric() -> type[Metric]:
    """Return the plugin class to recalign."""
    return Repeats
