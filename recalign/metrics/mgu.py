"""mgu@k: mean genre unfairness, how far the list's genres stray from the history's (lower is better)."""

from __future__ import annotations

import numpy as np

from recalign.api import Catalogue, ListBatch, Metric, Row, cut_lists, distinct_rows, flatten, hookimpl


class MGU(Metric):
    """Mean over the C genres of the catalogue of |P(c|L) - P(c|H)|; in [0, 2/C].

    P(c|.) is the normalised genre frequency: an item with m genres adds 1/m to each of them, an item without genres
    adds nothing.

    Differs from the paper, which is silent: copies and text that is no item count like items of a genre that no
    history has, so that a list of such positions only, an empty list and a list without any genre all score the worst
    value 2/C. A row whose history has no genre is left out (`defined_for`).
    """

    paper = "MGU (Jiang et al., WWW 2024); BLADE Eq. 16"
    reads = frozenset({"genres", "history"})
    higher_is_better = False

    def bind(self, catalogue: Catalogue, cutoff: int | None = None) -> None:
        """Attach the catalogue; refuse one without genres."""
        super().bind(catalogue, cutoff)
        genres = catalogue.genre_matrix
        self.shares = genres / np.maximum(genres.sum(axis=1, keepdims=True), 1.0)  # [I, C] what an item adds to a genre

    def score(self, lists: ListBatch) -> np.ndarray:
        """Return the values of N lists: float64 [N]."""
        rows, index = distinct_rows(lists.rows)
        heads = cut_lists(lists, self.cutoff)
        history, bounds = flatten([row.history for row in rows])
        wished = _normalise(self._frequencies(history, bounds), 0.0)[index]  # [N, C]

        counted = heads.counted.sum(axis=1)
        bounds = np.concatenate([[0], np.cumsum(counted)])
        frequencies = self._frequencies(heads.items[heads.counted], bounds)  # [N, C]
        wasted = (heads.lengths - counted).astype(np.float64)  # copies and invalid positions
        shown = _normalise(frequencies, wasted)
        # The share of wasted positions is a genre that no one wished; so is everything where the list has no genre.
        stray = np.abs(shown - wished).sum(axis=1) + (1.0 - shown.sum(axis=1))
        return np.where(frequencies.any(axis=1), stray, 2.0) / len(self.catalogue.genre_names)

    def defined_for(self, row: Row) -> bool:
        """Return whether the history has any genre."""
        return bool(self.shares[row.history].any())

    def _frequencies(self, items: np.ndarray, bounds: np.ndarray) -> np.ndarray:
        """Sum of the genre shares of each segment of items: float64 [segments, C]."""
        from scipy.sparse import csr_array

        shape = (len(bounds) - 1, len(self.shares))
        counts = csr_array((np.ones(len(items)), items.astype(np.int64), bounds), shape=shape)
        return np.asarray(counts @ self.shares)


def _normalise(frequencies: np.ndarray, wasted: np.ndarray | float) -> np.ndarray:
    """Divide [N, C] frequencies by their sum (and the wasted positions, [N]); rows of zeros stay zeros."""
    total = frequencies.sum(axis=1) + wasted
    return frequencies / np.where(total > 0, total, 1.0)[:, None]


@hookimpl
def recalign_metric() -> type[Metric]:
    """Return the plugin class to recalign."""
    return MGU
