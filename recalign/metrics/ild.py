"""ild@k: intra-list diversity, the mean Jaccard distance of the genres of a list's items."""

from __future__ import annotations

import numpy as np

from recalign.api import Catalogue, ListBatch, Metric, cut_lists, hookimpl


class ILD(Metric):
    """Mean over ordered pairs of positions of 1 - |g_i & g_j| / |g_i | g_j|; in [0, 1].

    Differs from the paper, which is silent: pairs with a copy or with text that is no item are at distance 0 and still
    count as pairs; two items without genres are at distance 0; a list of fewer than two items scores 0.
    """

    paper = "ILD (Ziegler et al., WWW 2005); BLADE Eq. 17"
    reads = frozenset({"genres"})

    def bind(self, catalogue: Catalogue, cutoff: int | None = None) -> None:
        """Attach the catalogue; refuse one without genres."""
        super().bind(catalogue, cutoff)
        self.genres = catalogue.genre_matrix.astype(np.float32)  # [I, C]

    def score(self, lists: ListBatch) -> np.ndarray:
        """Return the values of N lists: float64 [N]."""
        heads = cut_lists(lists, self.cutoff)
        genres = self.genres[heads.items]  # [N, k, C]; what INVALID picks is masked below
        common = genres @ genres.transpose(0, 2, 1)  # [N, k, k]
        sizes = genres.sum(axis=2)  # [N, k]
        either = sizes[:, :, None] + sizes[:, None, :] - common
        distances = 1.0 - np.divide(common, either, out=np.ones(common.shape), where=either > 0, dtype=np.float64)
        scoring = heads.counted[:, :, None] & heads.counted[:, None, :]
        pairs = heads.lengths * (heads.lengths - 1)
        total = np.where(scoring, distances, 0.0).sum(axis=(1, 2))
        return total / np.maximum(pairs, 1)


@hookimpl
def recalign_metric() -> type[Metric]:
    """Return the plugin class to recalign."""
    return ILD
