"""calibration@k: KL divergence of the list's genres from the history's, in nats (lower is better)."""

from __future__ import annotations

import numpy as np

from recalign.api import INVALID, Catalogue, Field, Metric, Params, Row, hookimpl


class CalibrationParams(Params):
    """Parameters of the metric calibration."""

    alpha: float = Field(0.01, gt=0, lt=1, description="share of the history that is mixed into the list")


class Calibration(Metric):
    """C_KL = sum_g p(g|u) log(p(g|u) / q'(g|u)) with q' = (1 - alpha) q + alpha p; in [0, log(1 / alpha)].

    p is the genre distribution of the history, q that of the list; an item with m genres adds 1/m to each of them. Text
    that is no item, and items without genres, add nothing but count as positions, so that a list of nothing else has
    q = 0 and the worst value. A row whose history has no genre is left out (`defined_for`).

    Source: Steck, "Calibrated Recommendations", RecSys 2018, Eq. 2 to 4 and 6 to 7.
    Differs from the paper: all items of the history and of the list weigh the same.
    """

    Params = CalibrationParams
    paper = "Steck, RecSys 2018, Eq. 6"
    reads = frozenset({"genres", "history"})
    higher_is_better = False

    def bind(self, catalogue: Catalogue, cutoff: int | None = None) -> None:
        """Attach the catalogue; refuse one without genres."""
        super().bind(catalogue, cutoff)
        genres = catalogue.genre_matrix
        self.shares = genres / np.maximum(genres.sum(axis=1, keepdims=True), 1.0)  # [I, C]

    def score_one(self, items: np.ndarray, row: Row) -> float:
        """Return the value of one list: items [K]."""
        wished = self.shares[row.history].sum(axis=0)
        wished = wished / (wished.sum() or 1.0)
        shown = self.shares[items[items != INVALID]].sum(axis=0) / max(len(items), 1)
        mixed = (1 - self.params.alpha) * shown + self.params.alpha * wished
        here = wished > 0
        return float((wished[here] * np.log(wished[here] / mixed[here])).sum())

    def defined_for(self, row: Row) -> bool:
        """Return whether the history has any genre."""
        return bool(self.shares[row.history].any())


@hookimpl
def recalign_metric() -> type[Metric]:
    """Return the plugin class to recalign."""
    return Calibration
