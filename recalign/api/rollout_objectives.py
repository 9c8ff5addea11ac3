"""Rollout objectives: credit and losses for the policy's own completions."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from recalign.api.objectives import Objective
from recalign.params import Params

if TYPE_CHECKING:
    import torch


class GroupParams(Params):
    """Parameters of every rollout objective."""

    group_size: int = Field(16, ge=2, description="completions per prompt, G")


class SamplingParams(GroupParams):
    """How a rollout objective samples."""

    temperature: float = Field(0.8, ge=0.01, description="sampling temperature")
    repetition_penalty: float = Field(
        1.0,
        ge=1.0,
        description="as in transformers; the paper samples with 1.05, but a list here repeats no item anyway",
    )


class RolloutParams(SamplingParams):
    """Parameters of the policy-gradient objectives (GRPO, BLADE Eq. 2-3)."""

    clip_epsilon: float = Field(0.2, gt=0, lt=1, description="ratios are clipped to [1-eps, 1+eps]")
    kl_beta: float = Field(0.0, ge=0, description="weight of the KL to the reference policy (k3 estimator)")
    scale: Literal["std", "none"] = Field("std", description="divide advantages by the group's std (none: Dr.GRPO)")
    length_normalise: bool = Field(True, description="divide each completion's loss by its length (false: Dr.GRPO)")


@dataclass(frozen=True)
class Groups:
    """The rewards of P groups of G completions, with what a credit may look at.

    Args:
        rewards: [P, G] float64.
        reference_rewards: [P, M] float64, rewards of the reference lists, or None where none were asked for.
        items: [P, G, K] int64 item indices.
        scores: [P, G] log-probability of each completion under the policy that made it.
        ranked: True where the completions of a group are the titles of one beam search, distinct and best first, and
            are no samples.
    """

    rewards: torch.Tensor
    reference_rewards: torch.Tensor | None
    items: torch.Tensor
    scores: torch.Tensor
    ranked: bool = False


@dataclass(frozen=True)
class Credit:
    """What each completion is worth.

    Args:
        advantages: [P, G], or [P, G, K] for one value per title (spread over the title's tokens and its separator).
        metrics: figures to log.
    """

    advantages: torch.Tensor
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PolicyBatch:
    """Log-probabilities of N completions, over the valid tokens; of samples, on exactly their distribution.

    Args:
        logps: [N, T] under the policy; gradients flow.
        old_logps: [N, T] under the policy that made the completions.
        reference_logps: [N, T] under the reference policy; may be None where the objective does not need them.
        advantages: [N, T].
        mask: [N, T] bool, True on completion tokens (forced ones included).
        groups: [N] int64, which prompt each completion answers, ascending; all of a group's completions are there only
            where the objective needs `whole_groups`.
    """

    logps: torch.Tensor
    old_logps: torch.Tensor
    reference_logps: torch.Tensor | None
    advantages: torch.Tensor
    mask: torch.Tensor
    groups: torch.Tensor | None = None


@dataclass(frozen=True)
class RolloutNeeds:
    """How the groups of a rollout objective come about, and what it is to be handed with them.

    Args:
        group_size: completions per prompt, G.
        rollouts: `sample`, G independent lists; or `beam`, the titles of one beam search of width G, distinct and best
            first (next task only: set `tasks`). Beams are no samples: no mean over them is an expectation under the
            policy.
        temperature: of sampling.
        repetition_penalty: of sampling.
        reference_logps: the loss reads `PolicyBatch.reference_logps`.
        reference_lists: M, lists to sample once per prompt from the reference policy; 0: none.
        whole_groups: the loss compares the completions of a group: no group is then cut to save memory.
    """

    group_size: int
    rollouts: Literal["sample", "beam"] = "sample"
    temperature: float = 1.0
    repetition_penalty: float = 1.0
    reference_logps: bool = False
    reference_lists: int = 0
    whole_groups: bool = False

    @property
    def ranked(self) -> bool:
        """Whether the completions of a group are the titles of one search, the best first."""
        return self.rollouts == "beam"


class RolloutObjective(Objective):
    """Credit for groups of the policy's own completions, and a policy loss.

    Attributes:
        Params: `needs` follows from a RolloutParams or a subclass; with another declaration, override it.
    """

    family = "rollout"
    Params: ClassVar[type[Params]] = RolloutParams

    @property
    def needs(self) -> RolloutNeeds:
        """How groups come about and what the loss reads, by default as RolloutParams says."""
        params = self.params
        return RolloutNeeds(
            params.group_size,
            temperature=params.temperature,
            repetition_penalty=params.repetition_penalty,
            reference_logps=params.kl_beta > 0,
        )

    @abstractmethod
    def credit(self, groups: Groups) -> Credit:
        """Turn rewards into advantages. Groups of all ranks are gathered before this is called."""

    @abstractmethod
    def loss(self, batch: PolicyBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the scalar loss and figures to log."""

    def weight(self, batch: PolicyBatch) -> torch.Tensor | float:
        """Return what the loss was divided by, 0 or more; by default the number of completions, N."""
        return len(batch.logps)
