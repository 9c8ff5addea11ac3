"""Measures that only evaluation asks for: hits, validity, repeats, history, popularity; and corpus-level ones."""

from __future__ import annotations

import numpy as np

from recalign.api import Catalogue, ListBatch, Metric, Predictions, Row
from recalign.api import CutLists, Relevance, cut_lists, distinct_rows


class _Hits(Metric):
    """What hit and mrr share."""

    reads = frozenset({"targets"})

    def relevant(self, lists: ListBatch) -> np.ndarray:
        """Where the lists name a relevant target: bool [N, k]."""
        rows, index = distinct_rows(lists.rows)
        return Relevance.of(rows, len(self.catalogue)).at(cut_lists(lists, self.cutoff), index) > 0

    def defined_for(self, row: Row) -> bool:
        """Whether the row has a relevant target."""
        return bool((row.gains > 0).any())


class Hit(_Hits):
    """1 where the first k positions name a relevant target."""

    def score(self, lists: ListBatch) -> np.ndarray:
        """Values of N lists: float64 [N]."""
        return self.relevant(lists).any(axis=1).astype(np.float64)


class MRR(_Hits):
    """1 / position of the first relevant target; 0 where there is none."""

    def score(self, lists: ListBatch) -> np.ndarray:
        """Values of N lists: float64 [N]."""
        relevant = self.relevant(lists)  # [N, k]
        return np.max(relevant / np.arange(1, relevant.shape[1] + 1), axis=1, initial=0.0)


class _Share(Metric):
    """Share of a list's positions with some property; an empty list has none."""

    def marked(self, heads: CutLists, lists: ListBatch) -> np.ndarray:
        """Which positions count: bool [N, k]."""
        raise NotImplementedError

    def score(self, lists: ListBatch) -> np.ndarray:
        """Values of N lists: float64 [N]."""
        heads = cut_lists(lists, self.cutoff)
        return self.marked(heads, lists).sum(axis=1) / np.maximum(heads.lengths, 1)


class Validity(_Share):
    """Share of positions that name an item of the catalogue."""

    def marked(self, heads: CutLists, lists: ListBatch) -> np.ndarray:
        """Which positions count: bool [N, k]."""
        return heads.items >= 0


class Repeats(_Share):
    """Share of positions that repeat an item named before."""

    higher_is_better = False

    def marked(self, heads: CutLists, lists: ListBatch) -> np.ndarray:
        """Which positions count: bool [N, k]."""
        return (heads.items >= 0) & ~heads.counted


class History(_Share):
    """Share of positions that name an item that the user consumed before."""

    reads = frozenset({"history"})

    def marked(self, heads: CutLists, lists: ListBatch) -> np.ndarray:
        """Which positions count: bool [N, k]."""
        rows, index = distinct_rows(lists.rows)
        size = len(self.catalogue)
        known = [place * size + np.asarray(row.consumed, dtype=np.int64) for place, row in enumerate(rows)]
        keys = index[:, None] * size + heads.items
        return (heads.items >= 0) & np.isin(keys, np.concatenate(known) if known else [])


class Unseen(_Share):
    """Share of positions that name an item without any training interaction."""

    reads = frozenset({"popularity"})

    def marked(self, heads: CutLists, lists: ListBatch) -> np.ndarray:
        """Which positions count: bool [N, k]."""
        return (heads.items >= 0) & (self.catalogue.popularity[heads.items] == 0)


class Popularity(Metric):
    """Mean number of training interactions of the items that a list names; 0 for a list without items."""

    reads = frozenset({"popularity"})

    def score(self, lists: ListBatch) -> np.ndarray:
        """Values of N lists: float64 [N]."""
        heads = cut_lists(lists, self.cutoff)
        total = np.where(heads.counted, self.catalogue.popularity[heads.items], 0).sum(axis=1)
        return total / np.maximum(heads.counted.sum(axis=1), 1)


MEASURES: dict[str, type[Metric]] = {
    "hit": Hit,
    "mrr": MRR,
    "validity": Validity,
    "repeats": Repeats,
    "history": History,
    "unseen": Unseen,
    "popularity": Popularity,
}


def corpus_measures(predictions: Predictions, catalogue: Catalogue) -> dict[str, float]:
    """Measures of all lists together.

    Returns:
        coverage: share of the catalogue that is recommended to anyone; gini: inequality of how often items are
        recommended, 0 (all alike) to 1 (one item only), over the whole catalogue.
    """
    inside = np.arange(predictions.items.shape[1]) < predictions.lengths[:, None]
    named = predictions.items[inside & (predictions.items >= 0)]
    counts = np.sort(np.bincount(named, minlength=len(catalogue)))
    ranks = np.arange(1, len(counts) + 1)
    total = counts.sum()
    gini = (2 * (ranks * counts).sum() / (len(counts) * total) - (len(counts) + 1) / len(counts)) if total else 0.0
    return {"coverage": float((counts > 0).mean()), "gini": float(gini)}
