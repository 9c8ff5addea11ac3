"""ndcg_rule: where the beam finds the target, a penalty for each wrong title, the larger the higher it is ranked."""

from __future__ import annotations

import numpy as np

from recalign.api import ListBatch, Metric, Row, cut_lists, hookimpl
from recalign.metrics.rule import hits


class NDCGRule(Metric):
    """Where a group has a hit, its wrong title at rank i (from 0) gets -(1 / log2(i + 2)) / sum_{j<G} 1 / log2(j + 2).

    The hit gets 0, and so does every title of a group without a hit. All G penalties together are -1.

    A group is the G ranked titles of one beam search. A list that stands alone, as in `eval` and validation, is its
    own group, and its value is the sum over its positions.

    A row without a relevant target is left out (`defined_for`).
    """

    paper = "ReRe, ranking reward (Tan et al., 2025)"
    reads = frozenset({"targets", "ranks"})

    def score(self, lists: ListBatch) -> np.ndarray:
        """Return the values of N lists: float64 [N]."""
        return rank_penalties(lists, self.cutoff, len(self.catalogue))

    def defined_for(self, row: Row) -> bool:
        """Return whether the row has a relevant target."""
        return bool((row.gains > 0).any())


def rank_penalties(lists: ListBatch, cutoff: int | None, catalogue_size: int) -> np.ndarray:
    """Penalties of N ranked titles within their groups, or of N lists each by itself: float64 [N]."""
    hit = hits(lists, cutoff, catalogue_size)  # [N, k]
    if lists.ranks is None:
        return _penalties(hit, cut_lists(lists, cutoff).lengths).sum(axis=1)
    _, group, sizes = np.unique(lists.groups, return_inverse=True, return_counts=True)
    place = (group, lists.ranks)
    grouped = np.zeros((len(sizes), int(sizes.max(initial=0))), dtype=bool)
    grouped[place] = hit[:, 0]
    return _penalties(grouped, sizes)[place]


def _penalties(hit: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Penalties of ranked titles: hit bool [P, n], of which the first `lengths` [P] exist -> float64 [P, n]."""
    weights = np.where(np.arange(hit.shape[1]) < lengths[:, None], 1.0 / np.log2(np.arange(hit.shape[1]) + 2.0), 0.0)
    shares = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1.0)  # the first weight is 1
    return np.where(hit.any(axis=1, keepdims=True) & ~hit, -shares, 0.0)


@hookimpl
def recalign_metric() -> type[Metric]:
    """Return the plugin class to recalign."""
    return NDCGRule
