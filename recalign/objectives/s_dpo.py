"""S-DPO: each target against several rejected titles at once, a softmax over titles."""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid

from recalign.api import Field, PreferenceBatch, PreferenceObjective, PreferenceParams, hookimpl
from recalign.objectives.dpo import preference_figures


class SdpoParams(PreferenceParams):
    """Parameters of S-DPO."""

    beta: float = Field(1.0, gt=0, description="scale of the log-ratios; official code 1.0, BLADE's comparison 0.1")
    negatives: int = Field(3, ge=1, le=64, description="rejected titles a row, D")


class Sdpo(PreferenceObjective):
    """L = mean over rows of -log sigmoid(-logsumexp_d beta (D_d - D_p)), with D = log pi - log pi_ref of a whole title.

    The gradient weighs each rejected title by its share in the softmax over the rejected titles: hard negatives count
    most. One negative is DPO.

    Source: Chen et al., "On Softmax Direct Preference Optimization for Recommendation", NeurIPS 2024, Eq. 12.
    """

    Params = SdpoParams
    paper = "Chen et al., NeurIPS 2024, Eq. 12"

    def loss(self, batch: PreferenceBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the mean loss over rows that have a rejected title, with the figures of `dpo`."""
        return softmax_preference(batch, self.params.beta), preference_figures(batch, self.params.beta)


def softmax_preference(batch: PreferenceBatch, beta: float) -> torch.Tensor:
    """Mean over rows of -log sigmoid(-logsumexp_d beta (D_d - D_p)); rows without rejected titles are left out."""
    some = batch.present[:, 1:].any(dim=1)
    ratios = batch.log_ratios[some]
    scores = beta * (ratios[:, 1:] - ratios[:, :1]).masked_fill(~batch.present[some, 1:], -torch.inf)  # [B', D]
    losses = -logsigmoid(-scores.logsumexp(dim=1))
    return losses.sum() / some.sum().clamp_min(1)


@hookimpl
def recalign_objective() -> type[Sdpo]:
    """Return this plugin's class."""
    return Sdpo
