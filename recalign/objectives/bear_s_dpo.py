"""S-DPO with BEAR's regulariser: the target survives the beam, rejected titles need not."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.nn.functional import logsigmoid

from recalign.api import Field, PreferenceBatch, PreferenceNeeds, PreferenceObjective, hookimpl
from recalign.objectives.dpo import preference_figures
from recalign.objectives.s_dpo import SdpoParams, softmax_preference


class BearSdpoParams(SdpoParams):
    """Parameters of S-DPO with BEAR's regulariser."""

    constrained: bool = Field(True, description="probabilities over the catalogue's valid tokens, as BEAR's are")
    beam: int = Field(10, ge=1, description="B: the beam width that decoding will use")
    weight: float = Field(1.0, ge=0, le=5, description="lambda, the weight of the regulariser; 0: S-DPO")
    temperature: float = Field(1.0, ge=0.25, le=3, description="xi, the temperature of the regulariser's sigmoid")


class BearSdpo(PreferenceObjective):
    """L = L_s-dpo + lambda * mean over rows of [ L_reg(target) - mean_d L_reg(d) ].

    L_reg(title) = sum_t log sigmoid((log beta_t - log p_t) / xi), beta_t being the B-th highest next-token probability
    (where fewer tokens are valid: the smallest valid one), a constant to the gradient. The target is pulled above the
    beam's pruning threshold, rejected titles are pushed below theirs.

    Source: Yang et al., "BEAR: Towards Beam-Search-Aware Optimization for Recommendation with Large Language Models",
    SIGIR 2026, Eq. 3.2-3.5 and Fig. 7; Chen et al. (S-DPO), NeurIPS 2024, Eq. 12.
    Differs from `bear`: L_reg enters as the paper's sum over tokens, not as weights of a cross-entropy.
    """

    Params = BearSdpoParams
    paper = "Yang et al., SIGIR 2026, Fig. 7"

    @property
    def needs(self) -> PreferenceNeeds:
        """The B-th best probabilities where the regulariser is on."""
        return replace(super().needs, threshold_rank=self.params.beam if self.params.weight > 0 else 0)

    def loss(self, batch: PreferenceBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss, with the figures of `dpo` and the share of the targets' choices below the threshold."""
        value, figures = softmax_preference(batch, self.params.beta), preference_figures(batch, self.params.beta)
        if self.params.weight == 0:
            return value, figures
        assert batch.thresholds is not None, "the trainer hands over thresholds where needs.threshold_rank is set"
        gaps = batch.thresholds - batch.token_logps  # [B, 1 + D, T] log beta - log p
        pruning = logsigmoid(gaps / self.params.temperature).masked_fill(~batch.choices, 0.0).sum(dim=2)  # [B, 1 + D]
        rejected = batch.present[:, 1:]
        some = rejected.any(dim=1)
        mean = pruning[:, 1:].masked_fill(~rejected, 0.0).sum(dim=1) / rejected.sum(dim=1).clamp_min(1)
        value = value + self.params.weight * (pruning[:, 0] - mean)[some].sum() / some.sum().clamp_min(1)
        choices = batch.choices[:, 0]
        dropped = ((gaps[:, 0] > 0) & choices).sum() / choices.sum().clamp_min(1)
        return value, {**figures, "pruned_share": float(dropped)}


@hookimpl
def recalign_objective() -> type[BearSdpo]:
    """Return this plugin's class."""
    return BearSdpo
