"""Static best-of-N alignment: how many reference lists of the supervised policy a completion beats."""

from __future__ import annotations

from dataclasses import replace

import torch

from recalign.api import (
    Credit,
    Field,
    Groups,
    Objective,
    PolicyBatch,
    RolloutNeeds,
    RolloutObjective,
    RolloutParams,
    hookimpl,
)
from recalign.objectives.policy_gradient import clipped_surrogate, group_advantages, proxy_reward


class BonParams(RolloutParams):
    """Parameters of static best-of-N alignment."""

    reference_lists: int = Field(128, ge=1, description="lists sampled once per prompt from the starting policy, M")
    count_ties: bool = Field(
        False, description="F counts references that equal the reward too, as the paper's Eq. 5 (false: those below it)"
    )
    best_of: int = Field(
        16, ge=2, description="N of the imitated best-of-N; the factor N-1 cancels with scale=std and matters with none"
    )


class Bon(RolloutObjective):
    """Proxy reward (N - 1) log F(r), F = share of the M reference rewards strictly below r; then GRPO.

    Source: Amini et al., "Variational best-of-N alignment", 2024; BLADE (Chen et al., SIGIR 2026), Eq. 5-7.
    Differs from the paper: F is strict, as BLADE's Eq. 13-15 are, where Eq. 5 has r' <= r (`count_ties`); F = 0 is
    taken for 0.5 / M; the KL to the reference has the weight `kl_beta`, 0 by default, where Eq. 6-7 have 1 beside a
    proxy reward that is not standardised (`kl_beta=1`, `scale=none`).
    """

    Params = BonParams
    paper = "Amini et al., Variational best-of-N alignment, 2024; BLADE (Chen et al., SIGIR 2026), Eq. 7"

    from_scratch = {"reference_lists": 32}

    @property
    def needs(self) -> RolloutNeeds:
        """M reference lists per prompt."""
        return replace(super().needs, reference_lists=self.params.reference_lists)

    def credit(self, groups: Groups) -> Credit:
        """Rank each reward among its prompt's reference rewards, then standardise within the group."""
        proxy = proxy_reward(
            groups.rewards,
            groups.reference_rewards,
            tau=0.0,
            best_of=self.params.best_of,
            ties=self.params.count_ties,
        )
        return Credit(group_advantages(proxy, self.params.scale), {"proxy_reward": float(proxy.mean())})

    def loss(self, batch: PolicyBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the clipped surrogate."""
        return clipped_surrogate(batch, self.params)


@hookimpl
def recalign_objective() -> type[Objective]:
    """Return this plugin's class."""
    return Bon
