"""bert4rec: BERT4Rec, a self-attentive recommender that guesses hidden items."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recalign.api import Catalogue, Field, Recommender, Row, TrainingData, hookimpl
from recalign.recommenders.sequential_params import SequentialParams

if TYPE_CHECKING:
    from recalign.recommenders.sequential_model import SequentialModel

WEIGHTS = "model.safetensors"


class Bert4RecParams(SequentialParams):
    """Parameters of BERT4Rec, which learns from fewer positions an epoch and takes more of them."""

    epochs: int = Field(400, ge=1, description="maximum number of passes over the users")
    mask: float = Field(0.2, gt=0, lt=1, description="share of a sequence's items that are hidden and guessed")


class Bert4Rec(Recommender):
    """A bidirectional transformer over item sequences, trained to guess hidden items.

    The logits at a hidden position behind the history rank what comes next.

    Source: Sun et al., "BERT4Rec", CIKM 2019.
    """

    Params = Bert4RecParams
    paper = "BERT4Rec (Sun et al., CIKM 2019)"
    display_name = "bert4rec"
    model: SequentialModel

    def fit(self, data: TrainingData, seed: int) -> None:
        """Train; `fitted` tells the retained epoch, the epochs done and the validation ndcg@10."""
        from recalign.recommenders.sequential_training import train_sequential

        self.model, self.fitted = train_sequential(
            data, self.params, seed, masked_share=self.params.mask, title=self.name
        )

    def scores(self, rows: Sequence[Row]) -> np.ndarray:
        """Return the logits of the item that comes next for B rows: float64 [B, I]."""
        return self.model.scores(rows)

    def save(self, folder: Path) -> None:
        """Write the weights."""
        self.model.save(folder / WEIGHTS)

    def load(self, folder: Path, catalogue: Catalogue) -> None:
        """Read what `save` wrote."""
        from recalign.recommenders.sequential_model import SequentialModel

        self.model = SequentialModel(len(catalogue), self.params, masked_share=self.params.mask).load(folder / WEIGHTS)


@hookimpl
def recalign_recommender() -> type[Recommender]:
    """Return the plugin class to recalign."""
    return Bert4Rec
