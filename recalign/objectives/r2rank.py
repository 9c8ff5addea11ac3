"""R2Rank: rationales for each candidate, scored by a head, ranked by Plackett-Luce draws, rewarded as a list."""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import model_validator

from recalign.api import (
    Field,
    Objective,
    RankBatch,
    RankCredit,
    Rankings,
    RankNeeds,
    RankObjective,
    RankParams,
    hookimpl,
)
from recalign.objectives.plackett_luce import draw_orders, order_logps
from recalign.objectives.policy_gradient import clipped_surrogate, group_advantages, settle_ties

ORDERS = 16
"""Orders drawn where there is a baseline: they cost next to nothing beside the responses."""


class R2RankParams(RankParams):
    """Parameters of R2Rank."""

    baseline: bool = Field(
        True, description="rewards minus those of the other orders, sets or rows (false: the paper's plain rewards)"
    )
    orders: int | None = Field(
        None, ge=1, description="orders drawn per set, M (default: 16 with a baseline; 1, the paper's, without)"
    )
    clip_epsilon: float = Field(0.2, gt=0, lt=1, description="ratios are clipped to [1-eps, 1+eps]")
    kl_beta: float = Field(0.0, ge=0, description="weight of the KL to the reference policy (the paper has none)")
    length_normalise: bool = Field(
        False, description="divide each response's loss by its length (false: plain sums, the paper's)"
    )
    through_head: bool = Field(
        False, description="let the head's gradient flow into the language model too (false: the paper's)"
    )

    @model_validator(mode="after")
    def _something_to_compare_with(self) -> R2RankParams:
        if self.baseline and self.orders == 1:
            raise ValueError("with baseline=true an order is compared with the others of its set; draw 2 or more")
        if self.head_only and (self.kl_beta > 0 or self.through_head):
            raise ValueError("head_only=true leaves the language model as it is: no kl_beta, no through_head")
        return self


class R2Rank(RankObjective):
    """Orders drawn by the head's scores; REINFORCE for the head, PPO's clipped loss for the language model.

    The reward of an order is a metric of the list that it is, such as ndcg@10. Head: reward times log P(order | s);
    language model: every token of all K responses gets the reward of its set. Both are sums over candidates and tokens,
    and means over sets.

    Source: "Reasoning to Rank" (R2Rank), Eq. 4-6 and Algorithm 1.
    Differs from the paper: by default M = 16 orders are drawn for a set, an order's reward is counted from the mean of
        the others, and a set's mean reward from that of the row's other sets or, where there are none, of the update's
        other rows; rewards are never negative, so without a baseline every response is made more likely. With
        `baseline=false` it is the paper's form. With several updates on the same responses, the ratio of an order's
        probabilities is clipped as those of tokens are.
    """

    Params = R2RankParams
    paper = "Reasoning to Rank (R2Rank), Eq. 4-6, Algorithm 1"

    @property
    def needs(self) -> RankNeeds:
        """M orders; responses where the model is trained, and the reference policy where there is a KL."""
        params = self.params
        trains = not params.head_only
        return replace(
            super().needs,
            orders=params.orders or (ORDERS if params.baseline else 1),
            scores_train_model=params.through_head,
            responses=trains,
            reference_logps=params.kl_beta > 0,
            compares_rows=params.baseline and params.sets == 1 and trains,
        )

    def orders(
        self, scores: torch.Tensor, gains: torch.Tensor, noise: torch.Tensor, present: torch.Tensor
    ) -> torch.Tensor:
        """Draw from the Plackett-Luce distribution of the scores."""
        return draw_orders(scores, noise, present)

    def credit(self, rankings: Rankings) -> RankCredit:
        """Return rewards, or what they are above the mean of what they are compared with."""
        rewards = rankings.rewards
        of_sets = rewards.mean(dim=2)  # [U, G]
        if not self.params.baseline:
            return RankCredit(rewards, of_sets)
        orders = above_the_others(rewards.flatten(0, 1)).view_as(rewards)
        alone = of_sets.shape[1] == 1
        return RankCredit(orders, above_the_others(of_sets.T).T if alone else above_the_others(of_sets))

    def loss(self, batch: RankBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the head's loss plus the language model's."""
        logps = order_logps(batch.scores, batch.orders, batch.present).sum(dim=-1)  # [B, M]
        with torch.no_grad():
            old = order_logps(batch.old_scores, batch.orders, batch.present).sum(dim=-1)
        ratio = torch.exp(logps - old)
        clipped = ratio.clamp(1 - self.params.clip_epsilon, 1 + self.params.clip_epsilon)
        head = -torch.minimum(ratio * batch.advantages, clipped * batch.advantages).mean()
        figures = {"order_logp": float(logps.detach().mean())}
        if batch.responses is None:
            return head, figures
        surrogate, tokens = clipped_surrogate(batch.responses, self.params)
        per_set = len(batch.responses.logps) / len(batch.scores)
        return head + per_set * surrogate, figures | tokens


def above_the_others(rewards: torch.Tensor) -> torch.Tensor:
    """Return each reward minus the mean of the others of its line: [L, N] float64; 0 where it is alone, or all equal.

    Source: the leave-one-out baseline of Kool et al., "Buy 4 REINFORCE Samples, Get a Baseline for Free!", 2019.
    """
    count = rewards.shape[1]
    return group_advantages(settle_ties(rewards), "none") * (count / max(count - 1, 1))


@hookimpl
def recalign_objective() -> type[Objective]:
    """Return this plugin's class."""
    return R2Rank
