"""ndcg@k: normalised discounted cumulative gain of the list against the targets."""

from __future__ import annotations

import numpy as np

from recalign.api import ListBatch, Metric, Relevance, Row, cut_lists, distinct_rows, hookimpl


class NDCG(Metric):
    """DCG = sum over positions p <= k of (2^rel - 1) / log2(p + 1), divided by that of the best possible list.

    The best list orders all distinct targets by gain and is cut at k too. In [0, 1]. Without `@k` nothing is cut,
    neither the list nor the best one.

    Differs from the paper: a repeated item scores at its first position only and its copies still take a position; text
    that is no item takes a position and scores 0; a row without a relevant target is left out (`defined_for`).
    """

    paper = "Järvelin & Kekäläinen, TOIS 2002; gains as in Burges et al., ICML 2005; R2Rank (Zheng et al.)"
    reads = frozenset({"targets"})

    def score(self, lists: ListBatch) -> np.ndarray:
        """Return the values of N lists: float64 [N]."""
        rows, index = distinct_rows(lists.rows)
        relevance = Relevance.of(rows, len(self.catalogue))
        heads = cut_lists(lists, self.cutoff)
        discounts = 1.0 / np.log2(np.arange(heads.items.shape[1]) + 2.0)  # [k]
        dcg = (np.exp2(relevance.at(heads, index)) - 1.0) @ discounts  # [N]
        ideal = ideal_dcg(relevance, self.cutoff)[index]  # [N]
        return np.divide(dcg, ideal, out=np.zeros_like(dcg), where=ideal > 0)

    def defined_for(self, row: Row) -> bool:
        """Return whether the row has a relevant target."""
        return bool((row.gains > 0).any())


def ideal_dcg(relevance: Relevance, cutoff: int | None) -> np.ndarray:
    """DCG@cutoff of the targets in the order of their gains: float64 [U]."""
    order = np.lexsort((-relevance.gains, relevance.owners))
    owners = relevance.owners[order]
    position = np.arange(len(owners)) - np.searchsorted(owners, owners)  # rank of each target within its row
    parts = (np.exp2(relevance.gains[order]) - 1.0) / np.log2(position + 2.0)
    if cutoff is not None:
        parts[position >= cutoff] = 0.0
    return np.bincount(owners, weights=parts, minlength=relevance.count)


@hookimpl
def recalign_metric() -> type[Metric]:
    """Return the plugin class to recalign."""
    return NDCG
