"""RLOO: REINFORCE with the mean reward of the group's other completions as baseline."""

from __future__ import annotations

import torch

from recalign.api import Credit, Groups, Objective, PolicyBatch, RolloutObjective, hookimpl


class Rloo(RolloutObjective):
    """A_i = r_i - mean of r_j over j != i; loss = -(1/N) sum_i A_i sum_t log pi(token t of completion i).

    `scale` and `length_normalise` are ignored: the estimator is unbiased without them. `clip_epsilon` is too, since
    the completions are used once, by the policy that sampled them.
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
            difference = batch.reference_logps - batch.logps
            kl = torch.exp(difference) - difference - 1
            gain = gain - self.params.kl_beta * kl
            metrics["kl"] = float((kl * batch.mask).sum().detach() / batch.mask.sum().clamp(min=1))
        return -(gain * batch.mask).sum(dim=1).mean(), metrics


@hookimpl
def recalign_objective() -> type[Objective]:
    """Hand over the class."""
    return Rloo
