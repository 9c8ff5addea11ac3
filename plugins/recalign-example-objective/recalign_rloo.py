"""RLOO: REINFORCE with the mean reward of the group's other completions as baseline."""

from __future__ import annotations

import torch

from recalign.api import Credit, Groups, Objective, PolicyBatch, RolloutObjective, hookimpl


class Rloo(RolloutObjective):
    """A_i = r_i - mean of r_j over j != i; loss = -(1/N) sum_i A_i sum_t log pi(token t of completion i).

    `scale` and `length_normalise` are ignored: the estimator is unbiased without them. `clip_epsilon` is too, since
    the completions are used once, by the policy that sampled them.

    Source: Kool et al., "Buy 4 REINFORCE samples, get a baseline for free!", 2019; Ahmadian et al., "Back to Basics:
    Revisiting REINFORCE-Style Optimization", ACL 2024.
    Differs from the papers' RLOO and from TRL's: the KL to the reference is a penalty on the loss with its own gradient
    (the k3 estimator, summed over tokens), where theirs is taken off each completion's reward before the baseline.
    With `scale=none` and `length_normalise=false` the advantage of `grpo` is (G - 1) / G of this one.
    """

    paper = "Kool et al., 2019 (Buy 4 REINFORCE samples, get a baseline for free); Ahmadian et al., ACL 2024"

    def credit(self, groups: Groups) -> Credit:
        """Advantages [P, G]: G / (G - 1) times the distance to the group's mean."""
        size = groups.rewards.shape[1]
        centred = groups.rewards - groups.rewards.mean(dim=1, keepdim=True)
        return Credit(centred * size / (size - 1))

    def loss(self, batch: PolicyBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the scalar loss, with the k3 penalty where `kl_beta` is set, and the KL to log."""
        gain = batch.advantages * batch.logps  # [N, T]
        metrics = {}
        if batch.reference_logps is not None:
            difference = (batch.reference_logps - batch.logps).masked_fill(~batch.mask, 0.0)
            kl = torch.exp(difference) - difference - 1
            if self.params.kl_beta > 0:  # else it is measured only: 0 times infinity is no number
                gain = gain - self.params.kl_beta * kl
            metrics["kl"] = float(kl.detach().sum() / batch.mask.sum().clamp(min=1))
        return -gain.masked_fill(~batch.mask, 0.0).sum(dim=1).mean(), metrics


@hookimpl
def recalign_objective() -> type[Objective]:
    """Return the plugin class to recalign."""
    return Rloo
