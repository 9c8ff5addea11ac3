"""Group-relative policy optimisation: the reward, standardised within the group, as advantage."""

from __future__ import annotations

import torch

from recalign.api import Credit, Groups, Objective, PolicyBatch, RolloutObjective, RolloutParams, hookimpl
from recalign.objectives.policy_gradient import clipped_surrogate, group_advantages, settle_ties


class Grpo(RolloutObjective):
    """A = (r - mean) / std of the group; PPO-clipped loss with an optional KL penalty.

    Source: Shao et al., "DeepSeekMath", 2024 (GRPO); BLADE (Chen et al., SIGIR 2026), Eq. 2-3. With `scale=none` and
    `length_normalise=false` it is Dr. GRPO (Liu et al., "Understanding R1-Zero-Like Training", 2025).
    Differs from Dr. GRPO's code: a completion's sum over tokens is divided by nothing, where the code divides it by the
    largest number of tokens that a completion may have: a constant, which the learning rate takes up.
    """

    Params = RolloutParams
    paper = "Shao et al., DeepSeekMath, 2024 (GRPO); BLADE (Chen et al., SIGIR 2026), Eq. 2-3"

    def credit(self, groups: Groups) -> Credit:
        """Standardise the rewards within each group."""
        return Credit(group_advantages(settle_ties(groups.rewards), self.params.scale))

    def loss(self, batch: PolicyBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the clipped surrogate."""
        return clipped_surrogate(batch, self.params)


@hookimpl
def recalign_objective() -> type[Objective]:
    """Return this plugin's class."""
    return Grpo
