"""List DPO: the best of a prompt's sampled lists against the worst, by the reward."""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid

from recalign.api import Credit, Field, Groups, PolicyBatch, RolloutNeeds, RolloutObjective, SamplingParams, hookimpl
from recalign.objectives.policy_gradient import settle_ties, zero_variance


class ListDpoParams(SamplingParams):
    """Parameters of list DPO."""

    beta: float = Field(0.1, gt=0, description="scale of the log-ratios to the reference policy")


class ListDpo(RolloutObjective):
    """L = mean over prompts of -log sigmoid(beta (D_best - D_worst)), with D = log pi - log pi_ref of a whole list.

    Best and worst are those of the G sampled lists by the reward (ties: the first); a prompt whose lists all have the
    same reward adds nothing. Log-probabilities are of the distribution that was sampled from: valid tokens, at the
    sampling temperature.

    Source: Rafailov et al. (DPO), NeurIPS 2023, Eq. 7, on sampled lists; a baseline of BLADE (Chen et al., SIGIR 2026).
    """

    Params = ListDpoParams
    paper = "Rafailov et al., NeurIPS 2023, Eq. 7, on sampled lists"

    @property
    def needs(self) -> RolloutNeeds:
        """Whole groups, to find their best and worst lists; the reference's log-probabilities, to measure D from."""
        params = self.params
        return RolloutNeeds(
            params.group_size,
            temperature=params.temperature,
            repetition_penalty=params.repetition_penalty,
            reference_logps=True,
            whole_groups=True,
        )

    def credit(self, groups: Groups) -> Credit:
        """Return +1 for the best list of each group, -1 for the worst, 0 for the others."""
        rewards = settle_ties(groups.rewards)  # [P, G]
        signs = torch.zeros_like(rewards)
        signs.scatter_(1, rewards.argmax(dim=1, keepdim=True), 1.0)
        signs.scatter_(1, rewards.argmin(dim=1, keepdim=True), -1.0)
        signs[zero_variance(rewards)] = 0.0
        gap = rewards.amax(dim=1) - rewards.amin(dim=1)
        return Credit(signs, {"reward_gap": float(gap.mean())})

    def loss(self, batch: PolicyBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the mean loss over prompts, with the share of pairs in the right order and their mean margin."""
        assert batch.reference_logps is not None and batch.groups is not None, "asked for by the declarations above"
        signed = ((batch.logps - batch.reference_logps) * batch.advantages).sum(dim=1)  # [N] D, -D or 0
        count = int(batch.groups.max()) + 1
        margins = signed.new_zeros(count).index_add(0, batch.groups, signed)  # [P]
        marked = batch.advantages.ne(0).any(dim=1).to(signed.dtype)
        paired = signed.new_zeros(count).index_add(0, batch.groups, marked) > 0
        losses = -logsigmoid(self.params.beta * margins).masked_fill(~paired, 0.0)
        pairs = max(int(paired.sum()), 1)
        margins = margins.detach()[paired]
        metrics = {
            "accuracy": float((margins > 0).sum()) / pairs,
            "margin": self.params.beta * float(margins.sum()) / pairs,
        }
        return losses.mean(), metrics


@hookimpl
def recalign_objective() -> type[ListDpo]:
    """Return this plugin's class."""
    return ListDpo
