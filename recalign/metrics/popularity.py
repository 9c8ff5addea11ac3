"""popularity@k: mean number of training interactions of the items that the list names."""

from __future__ import annotations

import numpy as np

from recalign.api import ListBatch, Metric, cut_lists, hookimpl


class Popularity(Metric):
    """Mean over the distinct items named of their training interactions; 0 for a list that names none."""

    reads = frozenset({"popularity"})
    higher_is_better = None

    def score(self, lists: ListBatch) -> np.ndarray:
        """Return the values of N lists: float64 [N]."""
        heads = cut_lists(lists, self.cutoff)
        total = np.where(heads.counted, self.catalogue.popularity[heads.items], 0).sum(axis=1)
        return total / np.maximum(heads.counted.sum(axis=1), 1)


@hookimpl
def recalign_metric() -> type[Metric]:
    """Return the plugin class to recalign."""
    return Popularity
