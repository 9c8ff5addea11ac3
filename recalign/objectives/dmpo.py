"""DMPO: each target against the sum of several rejected titles."""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid

from recalign.api import Field, PreferenceBatch, PreferenceObjective, PreferenceParams, hookimpl
from recalign.objectives.dpo import preference_figures


class DmpoParams(PreferenceParams):
    """Parameters of DMPO."""

    negatives: int = Field(3, ge=1, le=64, description="rejected titles a row, D")


class Dmpo(PreferenceObjective):
    """L = mean over rows of -log sigmoid(beta * sum_d (D_p - D_d)), with D = log pi - log pi_ref of a whole title.

    Source: Bai et al., "Aligning Large Language Model with Direct Multi-Preference Optimization for Recommendation",
    CIKM 2024.
    """

    Params = DmpoParams
    paper = "Bai et al., CIKM 2024"

    def loss(self, batch: PreferenceBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the mean loss over rows that have a rejected title, with the figures of `dpo`."""
        present = batch.present[:, 1:]
        margins = (batch.log_ratios[:, :1] - batch.log_ratios[:, 1:]).masked_fill(~present, 0.0)  # [B, D]
        some = present.any(dim=1)
        losses = -logsigmoid(self.params.beta * margins.sum(dim=1))[some]
        return losses.sum() / some.sum().clamp_min(1), preference_figures(batch, self.params.beta)


@hookimpl
def recalign_objective() -> type[Dmpo]:
    """Return this plugin's class."""
    return Dmpo
