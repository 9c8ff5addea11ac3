"""auc: share of (positive, negative) pairs of a row's candidates that the list has in the right order."""

from __future__ import annotations

import numpy as np

from recalign.api import ListBatch, Metric, Row, cut_lists, hookimpl
from recalign.metrics.rule import hits


class Auc(Metric):
    """Area under the ROC curve of one row's candidates: the Mann-Whitney statistic over its number of pairs.

    (1 / (P N)) * number of pairs of a relevant and another candidate in which the relevant one stands higher. What the
    list leaves out stands below it; of two that it leaves out, half a pair counts. Rows without candidates, and those
    whose candidates are all relevant or none, are left out (`defined_for`).

    Differs from TALLRec's AUC: that pools the pairs of all users, whose scores need not be comparable; this is the mean
    over rows of each row's own.
    """

    paper = "Hanley & McNeil, Radiology 1982; reported by TALLRec (Bao et al., RecSys 2023)"
    reads = frozenset({"targets"})

    def score(self, lists: ListBatch) -> np.ndarray:
        """Return the values of N lists: float64 [N]."""
        relevant = hits(lists, self.cutoff, len(self.catalogue))  # [N, k]
        others = cut_lists(lists, self.cutoff).counted & ~relevant
        sizes = np.array([_pairs(row) for row in lists.rows], dtype=np.float64).reshape(-1, 2)
        positives, negatives = sizes[:, 0], sizes[:, 1]
        above = np.minimum(others.cumsum(axis=1), negatives[:, None])  # [N, k] negatives that stand higher
        right = (np.where(relevant, negatives[:, None] - above, 0.0)).sum(axis=1)
        left_out = (positives - relevant.sum(axis=1)) * (negatives - others.sum(axis=1)).clip(min=0.0)
        return (right + 0.5 * left_out) / (positives * negatives)

    def defined_for(self, row: Row) -> bool:
        """Return whether the row's candidates are of both kinds."""
        return min(_pairs(row)) > 0


def _pairs(row: Row) -> tuple[int, int]:
    """How many of a row's candidates are relevant, and how many are not."""
    if row.candidates is None:
        return 0, 0
    positives = int(np.isin(row.candidates, row.relevant).sum())
    return positives, len(row.candidates) - positives


@hookimpl
def recalign_metric() -> type[Metric]:
    """Return the plugin class to recalign."""
    return Auc
