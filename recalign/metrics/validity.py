"""validity@k: share of positions that name an item of the catalogue."""

from __future__ import annotations

import numpy as np

from recalign.api import ListBatch, Metric, cut_lists, hookimpl
from recalign.metrics.shares import share_of_positions


class Validity(Metric):
    """Positions that name an item / positions of the list; 0 for an empty list."""

    def score(self, lists: ListBatch) -> np.ndarray:
        """Return the values of N lists: float64 [N]."""
        heads = cut_lists(lists, self.cutoff)
        return share_of_positions(heads.items >= 0, heads)


@hookimpl
def recalign_metric() -> type[Metric]:
    """Return the plugin class to recalign."""
    return Validity
