"""ListMLE: the best order of a row's candidates made most likely, the supervised counterpart of R2Rank."""

from __future__ import annotations

from dataclasses import replace

import torch

from recalign.api import Field, Objective, RankBatch, RankNeeds, RankObjective, RankParams, hookimpl
from recalign.objectives.plackett_luce import best_orders, order_logps


class ListMleParams(RankParams):
    """Parameters of ListMLE."""

    top: int | None = Field(
        None, ge=1, description="places of the best order that are learnt (default: all; 1: softmax cross-entropy)"
    )


class ListMle(RankObjective):
    """-log P(best order | scores): the Plackett-Luce log-probability of the candidates sorted by their gains.

    Equal gains, as all negatives have, come in an order that is drawn anew at every update. The gradient reaches the
    head and, through the hidden states, the language model; what the responses say is learnt by no token of theirs.

    Source: Xia et al., "Listwise Approach to Learning to Rank", ICML 2008 (ListMLE); PaperEval's loss with one
        reasoning token and temperature 1; with `top=1` the softmax cross-entropy over the candidates.
    """

    Params = ListMleParams
    paper = "Xia et al., Listwise Approach to Learning to Rank, ICML 2008"

    @property
    def needs(self) -> RankNeeds:
        """One order of a set; no log-probabilities of responses."""
        return replace(super().needs, scores_train_model=not self.params.head_only, responses=False)

    def orders(
        self, scores: torch.Tensor, gains: torch.Tensor, noise: torch.Tensor, present: torch.Tensor
    ) -> torch.Tensor:
        """Sort by gains; draw the order of equal ones."""
        return best_orders(gains, noise, present)

    def loss(self, batch: RankBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the mean over sets of -log P, as far as the places count; and how often the best candidate leads."""
        parts = order_logps(batch.scores, batch.orders, batch.present)[..., : self.params.top]  # [B, 1, K]
        leading = batch.scores.detach().masked_fill(~batch.present, -torch.inf).argmax(dim=1)  # [B]
        share = (leading == batch.orders[:, 0, 0]).double().mean()
        return -parts.sum(dim=-1).mean(), {"leads": float(share)}


@hookimpl
def recalign_objective() -> type[Objective]:
    """Return this plugin's class."""
    return ListMle
