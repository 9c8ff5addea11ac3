"""DMPO: each target against the mean of several rejected titles."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn.functional import logsigmoid

from recalign.api import Field, PreferenceBatch, PreferenceObjective, PreferenceParams, hookimpl
from recalign.objectives.dpo import preference_figures


class DmpoParams(PreferenceParams):
    """Parameters of DMPO."""

    negatives: int = Field(3, ge=1, le=64, description="rejected titles a row, D")
    aggregate: Literal["mean", "sum"] = Field(
        "mean",
        description="over a row's margins; mean: beta means the same for any number of negatives; sum: beta counts D "
        "times, as in Flower's implementation",
    )


class Dmpo(PreferenceObjective):
    """L = mean over rows of -log sigmoid(beta * (D_p - mean_d D_d)), with D = log pi - log pi_ref of a whole title.

    With `aggregate=sum` it is -log sigmoid(beta * sum_d (D_p - D_d)): beta is D times as large.

    Source: Bai et al., "Aligning Large Language Model with Direct Multi-Preference Optimization for Recommendation",
    CIKM 2024. Implementations by others differ: that of DynamicPO (2026) divides by the number of negatives, that of
    Flower (2025) does not; the authors' published code pairs one rejected title with each target.
    """

    Params = DmpoParams
    paper = "Bai et al., CIKM 2024"

    def loss(self, batch: PreferenceBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the mean loss over rows that have a rejected title, with the figures of `dpo`."""
        present = batch.present[:, 1:]
        margins = (batch.log_ratios[:, :1] - batch.log_ratios[:, 1:]).masked_fill(~present, 0.0)  # [B, D]
        some = present.any(dim=1)
        margin = margins.sum(dim=1)  # [B]
        if self.params.aggregate == "mean":
            margin = margin / present.sum(dim=1).clamp_min(1)
        losses = -logsigmoid(self.params.beta * margin)[some]
        return losses.sum() / some.sum().clamp_min(1), preference_figures(batch, self.params.beta)


@hookimpl
def recalign_objective() -> type[Dmpo]:
    """Return this plugin's class."""
    return Dmpo
