"""rule: 1 where the title is the target, else 0; of a list, how many of its titles are."""

from __future__ import annotations

import numpy as np

from recalign.api import ListBatch, Metric, Relevance, Row, cut_lists, distinct_rows, hookimpl


class Rule(Metric):
    """Number of relevant targets among the first k positions: 0 or 1 for a single title.

    A repeated item counts once; a row without a relevant target is left out (`defined_for`).
    """

    paper = "ReRe, rule-based reward (Tan et al., 2025)"
    reads = frozenset({"targets"})

    def score(self, lists: ListBatch) -> np.ndarray:
        """Return the values of N lists: float64 [N]."""
        return hits(lists, self.cutoff, len(self.catalogue)).sum(axis=1).astype(np.float64)

    def defined_for(self, row: Row) -> bool:
        """Return whether the row has a relevant target."""
        return bool((row.gains > 0).any())


def hits(lists: ListBatch, cutoff: int | None, catalogue_size: int) -> np.ndarray:
    """Mark the positions that name a relevant target for the first time: bool [N, k]."""
    rows, index = distinct_rows(lists.rows)
    return Relevance.of(rows, catalogue_size).at(cut_lists(lists, cutoff), index) > 0


@hookimpl
def recalign_metric() -> type[Metric]:
    """Return the plugin class to recalign."""
    return Rule
