"""ranking: rule + ndcg_rule, ReRe's reward: the target is worth 1, wrong titles cost the more the higher they rank."""

from __future__ import annotations

import numpy as np

from recalign.api import ListBatch, hookimpl
from recalign.metrics.ndcg_rule import NDCGRule, rank_penalties
from recalign.metrics.rule import hits


class Ranking(NDCGRule):
    """`rule` + `ndcg_rule`, in [-1, 1].

    A list that stands alone, as in `eval` and validation, is its own group, and its value is the sum over its
    positions: with one target that is (1 / log2(i + 2)) / sum over j < K of 1 / log2(j + 2) for the target at rank i,
    and 0 without it.
    """

    paper = "ReRe, ranking reward (Tan et al., 2025)"

    def score(self, lists: ListBatch) -> np.ndarray:
        """Return the values of N lists: float64 [N]."""
        size = len(self.catalogue)
        return hits(lists, self.cutoff, size).sum(axis=1) + rank_penalties(lists, self.cutoff, size)


@hookimpl
def recalign_metric() -> type[Ranking]:
    """Return the plugin class to recalign."""
    return Ranking
