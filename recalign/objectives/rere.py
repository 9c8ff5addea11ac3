"""ReRe: policy gradient on the ranked titles of a beam search instead of samples."""

from __future__ import annotations

import torch

from recalign.api import Credit, Field, GroupParams, Groups, PolicyBatch, RolloutNeeds, RolloutObjective, hookimpl
from recalign.objectives.policy_gradient import group_advantages, penalised_loss, settle_ties


class RereParams(GroupParams):
    """Parameters of ReRe."""

    group_size: int = Field(16, ge=2, description="width of the beam search, whose titles are the completions, G")
    kl_beta: float = Field(1e-3, ge=0, description="weight of the KL to the starting policy (k3 estimator)")
    std_offset: float = Field(
        1e-4,
        ge=0,
        description="added to the standard deviation of a group's rewards, as in the official code; rewards of that "
        "size or smaller need less, and 0 is GRPO's advantage, whatever their scale",
    )


class Rere(RolloutObjective):
    """Rollouts are the G titles of one constrained beam search: distinct, ranked, hard. A = (r - mean) / (std + c).

    loss = -(1/G) sum_i (1/T_i) sum_t [ rho A_i - beta KL_t ], rho = exp(log pi - stopgrad log pi), so without clipping.

    Beams are no samples: the mean over a group is no expectation under the policy. Use it with the reward `ranking`,
    which reads the ranks.

    Source: Tan et al., "Reinforced Preference Optimization for Recommendation", 2025, as its official code does it; KL
    as in GRPO (Shao et al., 2024).
    Differs from the code: log-probabilities run over the valid tokens, as the beam search's scores do; forced tokens
    then add nothing. The reference policy of the KL is the starting policy throughout; the released script moves its
    reference after the policy while it trains (TRL's `sync_ref_model`).
    """

    Params = RereParams
    paper = "ReRe (Tan et al., 2025), as in its official code"
    tasks = frozenset({"next"})

    @property
    def needs(self) -> RolloutNeeds:
        """Beams as rollouts; the reference's log-probabilities where there is a KL."""
        return RolloutNeeds(self.params.group_size, rollouts="beam", reference_logps=self.params.kl_beta > 0)

    @property
    def holds_constant(self) -> bool:
        """The probability that the ratio is divided by."""
        return True

    def credit(self, groups: Groups) -> Credit:
        """Standardise rewards within the group."""
        return Credit(group_advantages(settle_ties(groups.rewards), "std", offset=self.params.std_offset))

    def loss(self, batch: PolicyBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss; its gradient is that of advantage times log-probability, and of the KL."""
        ratio = torch.exp(batch.logps - batch.logps.detach())  # [N, T], 1 in value
        return penalised_loss(ratio * batch.advantages, batch, self.params.kl_beta)


@hookimpl
def recalign_objective() -> type[Rere]:
    """Return this plugin's class."""
    return Rere
