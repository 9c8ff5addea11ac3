"""history@k: share of positions that name an item which the user consumed before."""

from __future__ import annotations

import numpy as np

from recalign.api import ListBatch, Metric, cut_lists, distinct_rows, hookimpl
from recalign.metrics.shares import share_of_positions


class History(Metric):
    """Positions that name an item consumed before the cut / positions; 0 for an empty list.

    Neither direction is better: what users take again is a matter of the domain.
    """

    reads = frozenset({"history"})
    higher_is_better = None

    def score(self, lists: ListBatch) -> np.ndarray:
        """Return the values of N lists: float64 [N]."""
        heads = cut_lists(lists, self.cutoff)
        rows, index = distinct_rows(lists.rows)
        size = len(self.catalogue)
        known = [place * size + np.asarray(row.consumed, dtype=np.int64) for place, row in enumerate(rows)]
        keys = index[:, None] * size + heads.items
        consumed = (heads.items >= 0) & np.isin(keys, np.concatenate(known) if known else [])
        return share_of_positions(consumed, heads)


@hookimpl
def recalign_metric() -> type[Metric]:
    """Return the plugin class to recalign."""
    return History
