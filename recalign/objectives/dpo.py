"""DPO: each target against one rejected title."""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid

from recalign.api import PreferenceBatch, PreferenceObjective, hookimpl


class Dpo(PreferenceObjective):
    """L = mean over rejected titles d of -log sigmoid(beta (D_p - D_d)), with D = log pi - log pi_ref of a whole title.

    D_p is the target's log-ratio, D_d a rejected title's; several negatives are several pairs.

    Source: Rafailov et al., "Direct Preference Optimization: Your Language Model is Secretly a Metric Model", NeurIPS
    2023, Eq. 7.
    """

    paper = "Rafailov et al., NeurIPS 2023, Eq. 7"

    def loss(self, batch: PreferenceBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the mean loss over pairs, with the share of pairs in the right order and the mean margin."""
        margins = batch.log_ratios[:, :1] - batch.log_ratios[:, 1:]  # [B, D]
        present = batch.present[:, 1:]
        losses = -logsigmoid(self.params.beta * margins).masked_fill(~present, 0.0)
        return losses.sum() / present.sum().clamp_min(1), preference_figures(batch, self.params.beta)

    def weight(self, batch: PreferenceBatch) -> torch.Tensor:
        """Return the number of pairs."""
        return batch.present[:, 1:].sum()


def preference_figures(batch: PreferenceBatch, beta: float) -> dict[str, float]:
    """Return what every preference objective logs.

    `accuracy` is the share of pairs in which the target gained more on the reference than the rejected title;
    `margin` is the mean of beta (D_p - D_d); `chosen_log_ratio` that of D_p, which falls when titles lose probability
    altogether; `rejected` is how many rejected titles a row has, on average.
    """
    ratios, present = batch.log_ratios.detach(), batch.present[:, 1:]
    margins = (ratios[:, :1] - ratios[:, 1:])[present]
    count = max(len(margins), 1)
    return {
        "accuracy": float((margins > 0).sum()) / count,
        "margin": beta * float(margins.sum()) / count,
        "chosen_log_ratio": float(ratios[:, 0].mean()),
        "rejected": float(present.sum()) / len(present),
    }


@hookimpl
def recalign_objective() -> type[Dpo]:
    """Return this plugin's class."""
    return Dpo
