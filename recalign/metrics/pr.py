"""pr@k: pruning rate, targets that a beam lost although the model ranks them among its k best (lower is better)."""

from __future__ import annotations

import numpy as np

from recalign.api import ListBatch, Metric, Row, hookimpl


class PruningRate(Metric):
    """Share of the row's relevant targets that are among the first k of the exact list and nowhere in the beam's list.

    0 or 1 where a row has one target; a row without a relevant target is left out (`defined_for`). The list itself is
    not cut at k.
    """

    paper = "BEAR (SIGIR 2026), Fig. 6"
    reads = frozenset({"targets", "exact"})
    higher_is_better = False

    def score(self, lists: ListBatch) -> np.ndarray:
        """Return the values of N lists: float64 [N]."""
        assert lists.exact is not None
        exact, values = lists.exact, np.zeros(len(lists))
        reach = exact.items.shape[1] if self.cutoff is None else self.cutoff
        for place, row in enumerate(lists.rows):
            targets = np.unique(row.relevant)
            lost = np.setdiff1d(targets, lists.items[place, : lists.lengths[place]])
            among = np.isin(lost, exact.items[place, : min(reach, exact.lengths[place])])
            values[place] = among.sum() / len(targets) if len(targets) else 0.0
        return values

    def defined_for(self, row: Row) -> bool:
        """Return whether the row has a relevant target."""
        return bool((row.gains > 0).any())


@hookimpl
def recalign_metric() -> type[Metric]:
    """Return the plugin class to recalign."""
    return PruningRate
