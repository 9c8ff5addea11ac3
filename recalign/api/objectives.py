"""Objectives: losses on the data's answers, on preferred and rejected titles, on the policy's own rollouts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from recalign.api.base import Plugin
from recalign.params import Params

if TYPE_CHECKING:
    import torch


class Objective(Plugin, ABC):
    """What is optimised.

    Subclass `TokenObjective` (the answers of the data), `PreferenceObjective` (answers against rejected ones) or
    `RolloutObjective` (sampled groups).

    An update's batch may be cut: into accumulated micro-batches, over processes, to fit memory. The loss over all of it
    is the mean of the parts' losses (`loss`) by their weights (`weight`), and so is its gradient. A loss that is a mean
    over what its family counts (answer tokens, rows that have a rejected title, completions) has nothing to do for
    that; one that is divided by something else overrides `weight` to return it.
    """

    tasks: ClassVar[frozenset[str]] = frozenset({"next", "list"})

    def state_dict(self) -> dict[str, Any]:
        """The objective's own state, saved with every checkpoint (JSON-serialisable)."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""


@dataclass(frozen=True)
class ValidTokens:
    """The valid next tokens of the R positions of a batch that have several; everywhere else the token is forced.

    Ragged, because a [S, V] mask would be a thousand times larger: few of a title's tokens are a choice.

    Args:
        positions: [R] int64, which of the S positions they are, in any order.
        starts: [R + 1] int64; those of `positions[r]` are `tokens[starts[r] : starts[r + 1]]`, two or more.
        tokens: [E] int64 token ids, without repeats at a position.
    """

    positions: torch.Tensor
    starts: torch.Tensor
    tokens: torch.Tensor

    @property
    def counts(self) -> torch.Tensor:
        """[R] how many tokens are valid."""
        return self.starts.diff()

    def padded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return [R, C] token ids (0 in the padding) and [R, C] bool, False in the padding."""
        import torch

        counts = self.counts
        column = torch.arange(int(counts.max()) if len(counts) else 0, device=counts.device)
        present = column < counts[:, None]  # [R, C]
        tokens = self.tokens.new_zeros(present.shape)
        tokens[present] = self.tokens
        return tokens, present


@dataclass(frozen=True)
class AnswerBatch:
    """The S answer tokens of a batch of rows, laid end to end.

    Args:
        logits: [S, V] float32, at the position before each answer token; gradients flow.
        labels: [S] int64 token ids.
        rows: [S] which row of the batch each token belongs to.
        allowed: the trie's valid next tokens, or None where the objective does not ask for them.
        logits_without_history: [S, V] float32, as `logits`, for the same answers after prompts with an empty history;
            None where the objective does not ask for them. Gradients flow.
        beam_thresholds: [S] float32, what the log-probability of the answer's prefix, renormalised over valid tokens,
            must reach after this token to stay in a beam search with the present policy; -inf where the search had
            nothing to choose and the answer neither. None where the objective does not ask for them.
    """

    logits: torch.Tensor
    labels: torch.Tensor
    rows: torch.Tensor
    allowed: ValidTokens | None = None
    logits_without_history: torch.Tensor | None = None
    beam_thresholds: torch.Tensor | None = None


class TokenObjective(Objective):
    """A loss on the answer's tokens.

    Attributes:
        reads_allowed: set it to be handed the trie's valid next tokens (`AnswerBatch.allowed`).
        reads_without_history: set it to be handed `AnswerBatch.logits_without_history`, for a second forward pass.
    """

    reads_allowed: ClassVar[bool] = False
    reads_without_history: ClassVar[bool] = False

    @property
    def beam_width(self) -> int:
        """Width of the beam search to be handed the thresholds of (`AnswerBatch.beam_thresholds`); 0: none."""
        return 0

    @property
    def surveys(self) -> bool:
        """Whether `survey` is called; with several batches an update that takes another forward pass of each."""
        return False

    def survey(self, batches: Iterable[AnswerBatch]) -> None:
        """Look at an update's batches before the losses are asked for, for what no part can tell by itself.

        Args:
            batches: all of the update's in this process, without gradients; each can be gone through once. What other
                processes have, the objective gathers itself (torch.distributed).
        """

    @property
    def responses_only(self) -> bool:
        """Whether the loss means something on responses only, not on the tokens of prompts."""
        return self.reads_allowed or self.reads_without_history or self.beam_width > 0

    @abstractmethod
    def loss(self, answers: AnswerBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the scalar loss and figures to log; validation asks for it too, so nothing of the objective moves."""

    def weight(self, answers: AnswerBatch) -> torch.Tensor | float:
        """Return what the loss was divided by, 0 or more; by default the number of answer tokens, S."""
        return len(answers.labels)


class PreferenceParams(Params):
    """Parameters of every preference objective."""

    beta: float = Field(0.1, gt=0, description="scale of the log-ratios to the reference policy")
    negatives: int = Field(1, ge=1, le=64, description="rejected titles a row, D")
    source: Literal["uniform", "popularity", "batch", "self", "greedy"] = Field(
        "uniform",
        description="where rejected titles come from: any item, items by training popularity, the targets of the "
        "batch's other rows, the policy's own beam search, or the one title that it decodes greedily",
    )
    constrained: bool = Field(
        False, description="probabilities over the catalogue's valid tokens (false: all tokens, as in the papers)"
    )


@dataclass(frozen=True)
class PreferenceBatch:
    """Log-probabilities of B rows' titles: the chosen one in column 0, then D rejected ones.

    T counts the tokens of the longest title, its end token included.

    Args:
        logps: [B, 1 + D] of whole titles under the policy; gradients flow.
        reference_logps: [B, 1 + D] under the reference policy.
        present: [B, 1 + D] bool; False where a row has fewer rejected titles. Column 0 is always present.
        token_logps: [B, 1 + D, T] under the policy; gradients flow; 0 at tokens that do not count.
        thresholds: [B, 1 + D, T] log-probability of the `threshold_rank`-th best token, a constant to the gradient;
            None where the rank is 0.
        choices: [B, 1 + D, T] bool, the tokens that count: with constrained probabilities those with several valid
            tokens, else all tokens of the title.
    """

    logps: torch.Tensor
    reference_logps: torch.Tensor
    present: torch.Tensor
    token_logps: torch.Tensor
    thresholds: torch.Tensor | None
    choices: torch.Tensor

    @property
    def log_ratios(self) -> torch.Tensor:
        """[B, 1 + D] log pi - log pi_ref of each title."""
        return self.logps - self.reference_logps


@dataclass(frozen=True)
class Rounds:
    """Training in rounds, against what the policy itself recommends (self-play).

    In each round some training rows get their rejected titles from the policy as it is; then it is fine-tuned on their
    targets; then it is trained by the objective, with the fine-tuned policy as the reference.

    Args:
        count: rounds.
        rows: training rows a round.
    """

    count: int
    rows: int


class PreferenceObjective(Objective):
    """A loss that prefers each row's target to rejected titles, as far as a reference policy allows.

    Attributes:
        Params: a PreferenceParams.
    """

    Params: ClassVar[type[Params]] = PreferenceParams
    tasks = frozenset({"next"})

    @property
    def threshold_rank(self) -> int:
        """Rank of the next-token probability handed over as `PreferenceBatch.thresholds`; 0: none."""
        return 0

    @property
    def rounds(self) -> Rounds | None:
        """How training is cut into rounds of self-play; None: it is one pass against the policy that it began with."""
        return None

    @abstractmethod
    def loss(self, batch: PreferenceBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the scalar loss and figures to log."""

    def weight(self, batch: PreferenceBatch) -> torch.Tensor | float:
        """Return what the loss was divided by, 0 or more; by default the number of rows with a rejected title."""
        return batch.present[:, 1:].any(dim=1).sum()


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
        advantages: [P, G], or [P, G, K] for one value a title (spread over the title's tokens and its separator).
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
        reference_logps: [N, T] under the reference policy; may be None where the objective does not read them.
        advantages: [N, T].
        mask: [N, T] bool, True on completion tokens (forced ones included).
        groups: [N] int64, which prompt each completion answers, ascending; all of a group's completions are there only
            where the objective sets `whole_groups`.
    """

    logps: torch.Tensor
    old_logps: torch.Tensor
    reference_logps: torch.Tensor | None
    advantages: torch.Tensor
    mask: torch.Tensor
    groups: torch.Tensor | None = None


class RolloutObjective(Objective):
    """Credit for groups of the policy's own completions, and a policy loss.

    Attributes:
        rollouts: how a group comes about: `sample`, G independent lists; or `beam`, the titles of one beam search of
            width G, distinct and best first (next task only: set `tasks`). Beams are no samples: no mean over them is
            an expectation under the policy.
        Params: a GroupParams; for samples a SamplingParams, or RolloutParams with what policy gradients need besides.
        whole_groups: set it where the loss compares the completions of a group: no group is then cut to save memory.
    """

    rollouts: ClassVar[Literal["sample", "beam"]] = "sample"
    Params: ClassVar[type[Params]] = RolloutParams
    whole_groups: ClassVar[bool] = False

    @property
    def reads_reference(self) -> bool:
        """Whether the loss needs `PolicyBatch.reference_logps`; by default where there is a `kl_beta` above 0."""
        return isinstance(self.params, RolloutParams) and self.params.kl_beta > 0

    @property
    def reference_lists(self) -> int:
        """M: how many lists to sample once per prompt from the reference policy (0: none)."""
        return 0

    @abstractmethod
    def credit(self, groups: Groups) -> Credit:
        """Turn rewards into advantages. Groups of all ranks are gathered before this is called."""

    @abstractmethod
    def loss(self, batch: PolicyBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the scalar loss and figures to log."""

    def weight(self, batch: PolicyBatch) -> torch.Tensor | float:
        """Return what the loss was divided by, 0 or more; by default the number of completions, N."""
        return len(batch.logps)
