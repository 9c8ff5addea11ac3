"""BLADE: best-of-N alignment against reference lists and, with weight tau, the rollout's own group."""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import model_validator

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

SMALLEST_TAU = 1e-6


class BladeParams(RolloutParams):
    """Parameters of BLADE."""

    reference_lists: int = Field(
        128, ge=0, description="lists sampled once per prompt from the starting policy, M (0: no prior)"
    )
    tau: float = Field(
        0.3,
        ge=0,
        description="weight of the group beside the references (0: static best-of-N; else 1e-6 or more)",
    )
    best_of: int = Field(
        16, ge=2, description="N of the imitated best-of-N; the factor N-1 cancels with scale=std and matters with none"
    )

    @model_validator(mode="after")
    def _something_to_compare_with(self) -> BladeParams:
        if self.tau == 0 and self.reference_lists == 0:
            raise ValueError("with tau=0 and reference_lists=0 there is nothing to compare a reward with")
        if 0 < self.tau < SMALLEST_TAU:
            raise ValueError(
                f"with tau={self.tau:g} floating point no longer tells the group's counts apart beside the "
                f"references'; take 0 or at least {SMALLEST_TAU:g}"
            )
        return self


class Blade(RolloutObjective):
    """Proxy reward (N - 1) log F(r), F = (n_ref + tau * n_batch) / (M + tau * G); then GRPO.

    n_ref and n_batch are how many of the M reference and of the G group rewards are strictly below r; rewards that
    differ by rounding only are equal.

    Source: Chen et al., BLADE, SIGIR 2026, Eq. 13-15.
    Differs from the paper: a count of 0 is taken for half the smallest positive one (0.5 min(1, tau); 0.5 tau without
    references), where the paper has log 0.
    """

    Params = BladeParams
    paper = "Chen et al., BLADE, SIGIR 2026, Eq. 13-15"

    from_scratch = {"reference_lists": 32}

    @property
    def needs(self) -> RolloutNeeds:
        """M reference lists per prompt."""
        return replace(super().needs, reference_lists=self.params.reference_lists)

    def credit(self, groups: Groups) -> Credit:
        """Rank each reward among reference and group rewards, then standardise within the group."""
        proxy = proxy_reward(groups.rewards, groups.reference_rewards, tau=self.params.tau, best_of=self.params.best_of)
        return Credit(group_advantages(proxy, self.params.scale), {"proxy_reward": float(proxy.mean())})

    def loss(self, batch: PolicyBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the clipped surrogate."""
        return clipped_surrogate(batch, self.params)


@hookimpl
def recalign_objective() -> type[Objective]:
    """Return this plugin's class."""
    return Blade
