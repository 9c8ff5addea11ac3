"""sasrec: SASRec, a self-attentive recommender that reads the history from left to right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recalign.api import Catalogue, Recommender, Row, TrainingData, hookimpl
from recalign.recommenders.sequential_params import SequentialParams

if TYPE_CHECKING:
    from recalign.recommenders.sequential_model import SequentialModel

WEIGHTS = "model.safetensors"


class SasRecParams(SequentialParams):
    """Parameters of SASRec."""


class SasRec(Recommender):
    """A causal transformer over item sequences; the logits at the last position rank what comes next.

    Differs from the paper: cross-entropy over all items at every position instead of one sampled negative, as in later
    work. Without a history all items score 0.

    Source: Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018.
    """

    Params = SasRecParams
    paper = "SASRec (Kang and McAuley, ICDM 2018)"
    display_name = "sasrec"
    model: SequentialModel

    def fit(self, data: TrainingData, seed: int) -> None:
        """Train; `fitted` tells the retained epoch, the epochs done and the validation ndcg@10."""
        from recalign.recommenders.sequential_training import train_sequential

        self.model, self.fitted = train_sequential(data, self.params, seed, title=self.name)

    def scores(self, rows: Sequence[Row]) -> np.ndarray:
        """Return the logits of the item that comes next for B rows: float64 [B, I]."""
        return self.model.scores(rows)

    def save(self, folder: Path) -> None:
        """Write the weights."""
        self.model.save(folder / WEIGHTS)

    def load(self, folder: Path, catalogue: Catalogue) -> None:
        """Read what `save` wrote."""
        from recalign.recommenders.sequential_model import SequentialModel

        self.model = SequentialModel(len(catalogue), self.params).load(folder / WEIGHTS)


@hookimpl
def recalign_recommender() -> type[Recommender]:
    """Return the plugin class to recalign."""
    return SasRec
