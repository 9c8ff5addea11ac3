"""novelty@k: mean -log2 popularity of a list's items, in bits (higher is rarer)."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from recalign.api import Field, ListBatch, Metric, Params, cut_lists, hookimpl


class NoveltyParams(Params):
    """Parameters of the metric novelty."""

    smoothing: float = Field(1.0, gt=0, description="added to every item's count, so that unseen items stay finite")


class Novelty(Metric):
    """Mean of -log2 p(i) over a list's positions; p(i) = (n_i + smoothing) / (sum of n + I * smoothing).

    n_i counts the training interactions of item i, I the items. A repeated item counts each time; text that is no item
    takes a position and scores 0; an empty list scores 0.
    """

    Params = NoveltyParams
    paper = "Zhou et al., PNAS 2010 (mean self-information); Vargas & Castells, RecSys 2011"
    reads = frozenset({"popularity"})

    @cached_property
    def bits(self) -> np.ndarray:
        """[I + 1] -log2 p(i); the last entry, which INVALID indexes, is 0."""
        counts = self.catalogue.popularity + self.params.smoothing
        return np.append(-np.log2(counts / counts.sum()), 0.0)

    def score(self, lists: ListBatch) -> np.ndarray:
        """Return the values of N lists: float64 [N]."""
        heads = cut_lists(lists, self.cutoff)  # INVALID beyond the list's end
        return self.bits[heads.items].sum(axis=1) / np.maximum(heads.lengths, 1)


@hookimpl
def recalign_metric() -> type[Metric]:
    """Return the plugin class to recalign."""
    return Novelty
