"""SPRec: rounds of self-play, fine-tuning on targets and DPO against what the model itself recommends."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch

from recalign.api import (
    Field,
    PreferenceBatch,
    PreferenceNeeds,
    PreferenceObjective,
    PreferenceParams,
    Rounds,
    hookimpl,
)
from recalign.objectives.dpo import preference_figures
from recalign.objectives.s_dpo import softmax_preference


class SprecParams(PreferenceParams):
    """Parameters of SPRec."""

    rounds: int = Field(5, ge=1, description="rounds of self-play")
    round_rows: int = Field(2048, ge=1, description="training rows a round")
    negatives: int = Field(1, ge=1, le=64, description="rejected titles a row; more than 1 need source=self")
    source: Literal["self", "greedy"] = Field(
        "greedy",
        description="greedy: the title that the policy decodes greedily; self: the best titles of its beam search, "
        "the target left out",
    )


class Sprec(PreferenceObjective):
    """In every round: draw rejected titles from the policy, fine-tune on the targets, then DPO with that as reference.

    Rejected is what the policy recommends at the start of the round; rows for which that is the target take no part in
    DPO. The loss is that of `dpo`; with several negatives (`source=self`) that of `s-dpo`.

    Source: Gao et al., "SPRec: Self-Play to Debias LLM-based Recommendation", WWW 2025.
    Differs from the official code: decoding is constrained to the catalogue, which grounds every output to an item.
    """

    Params = SprecParams
    paper = "SPRec (Gao et al., WWW 2025)"

    @property
    def needs(self) -> PreferenceNeeds:
        """Rounds of self-play."""
        return replace(super().needs, rounds=Rounds(self.params.rounds, self.params.round_rows))

    def loss(self, batch: PreferenceBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the mean loss over rows that have a rejected title, with the figures of `dpo`."""
        return softmax_preference(batch, self.params.beta), preference_figures(batch, self.params.beta)


@hookimpl
def recalign_objective() -> type[Sprec]:
    """Return this plugin's class."""
    return Sprec
