"""Preference objectives: losses on the data's titles against rejected ones."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from recalign.api.objectives import Objective
from recalign.params import Params

if TYPE_CHECKING:
    import torch


class PreferenceParams(Params):
    """Parameters of every preference objective."""

    beta: float = Field(0.1, gt=0, description="scale of the log-ratios to the reference policy")
    negatives: int = Field(1, ge=1, le=64, description="rejected titles per row, D")
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


@dataclass(frozen=True)
class PreferenceNeeds:
    """What a preference objective is to be handed.

    Args:
        source: where rejected titles come from; see `PreferenceParams.source`.
        negatives: rejected titles per row, D.
        constrained: probabilities over the catalogue's valid tokens, not over all tokens.
        threshold_rank: rank of the next-token probability handed over as `PreferenceBatch.thresholds`; 0: none.
        rounds: how training is cut into rounds of self-play; None: one pass against the policy that it began with.
    """

    source: str
    negatives: int
    constrained: bool = False
    threshold_rank: int = 0
    rounds: Rounds | None = None


class PreferenceObjective(Objective):
    """A loss that prefers each row's target to rejected titles, as far as a reference policy allows.

    Attributes:
        Params: a PreferenceParams.
    """

    family = "preference"
    Params: ClassVar[type[Params]] = PreferenceParams
    tasks = frozenset({"next"})

    @property
    def needs(self) -> PreferenceNeeds:
        """What the trainer must hand over, by default as the parameters of every preference objective say."""
        params = self.params
        return PreferenceNeeds(params.source, params.negatives, constrained=params.constrained)

    @abstractmethod
    def loss(self, batch: PreferenceBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the scalar loss and figures to log."""

    def weight(self, batch: PreferenceBatch) -> torch.Tensor | float:
        """Return what the loss was divided by, 0 or more; by default the number of rows with a rejected title."""
        return batch.present[:, 1:].any(dim=1).sum()
