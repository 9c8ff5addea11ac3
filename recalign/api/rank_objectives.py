"""Rank objectives: losses on the scores of a row's candidates, and on the responses that the scores were read from.

Dimension letters: U rows, G sets of responses per row, B sets of a batch, K candidates of a row, M orders of them,
T tokens of a response.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import Field

from recalign.api.objectives import Objective
from recalign.api.ranking_head import RANKING_HEAD, head_scores, ranking_head
from recalign.data.questions import DECISION, RATIONALE, Answering, StateAt
from recalign.params import Params

if TYPE_CHECKING:
    import torch

    from recalign.api.rollout_objectives import PolicyBatch


@dataclass(frozen=True)
class RankNeeds:
    """How the responses of a rank objective come about, and what it is to be handed with them.

    Args:
        sets: G, independent responses to each candidate; a set is one response to every candidate of a row.
        orders: M, orders of the candidates that are made of each set's scores and rewarded.
        answering: how the questions about candidates are answered, and where the head reads; models record it.
        temperature: of sampling.
        trains_model: gradients reach the language model; False: nothing but the head is trained.
        scores_train_model: gradients of the scores flow through the hidden states into the language model.
        responses: the loss reads `RankBatch.responses`.
        reference_logps: the loss reads `RankBatch.responses.reference_logps`.
        compares_rows: credit compares the rows of an update with each other, so that one row alone teaches nothing.
    """

    sets: int = 1
    orders: int = 1
    answering: Answering = Answering(RATIONALE)
    temperature: float = 1.0
    trains_model: bool = True
    scores_train_model: bool = False
    responses: bool = True
    reference_logps: bool = False
    compares_rows: bool = False


class RankParams(Params):
    """Parameters of every rank objective."""

    rationale: bool = Field(True, description="write a rationale before the decision (false: the decision alone)")
    sets: int = Field(1, ge=1, description="responses per candidate, each set of which is ranked, G")
    temperature: float = Field(1.0, ge=0.01, description="sampling temperature of the responses")
    max_tokens: int = Field(256, ge=1, description="tokens after which a rationale is cut off and the decision forced")
    state: StateAt = Field("decision", description="the head reads the decision's last token, or the tag that opens it")
    head_only: bool = Field(False, description="train the head alone; the language model is left as it is, bit for bit")


@dataclass(frozen=True)
class Rankings:
    """The scores of U rows' candidates, orders made of them, and what those are worth: all that credit may look at.

    Args:
        scores: [U, G, K] float64; rows with fewer candidates are padded.
        orders: [U, G, M, K] int64, places of the candidates, best first, padding last.
        rewards: [U, G, M] float64, of each order.
        gains: [U, K] float64, relevance of each candidate; 0 for those that are no target.
        present: [U, K] bool, False for padding.
    """

    scores: torch.Tensor
    orders: torch.Tensor
    rewards: torch.Tensor
    gains: torch.Tensor
    present: torch.Tensor


@dataclass(frozen=True)
class RankCredit:
    """What orders and responses are worth.

    Args:
        orders: [U, G, M], to the head.
        responses: [U, G], or [U, G, K] for one value per candidate, to the language model: that of every token.
        metrics: figures to log.
    """

    orders: torch.Tensor
    responses: torch.Tensor
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RankBatch:
    """B sets of responses, each to the K candidates of one row.

    Args:
        scores: [B, K] float32 of the head; gradients flow into it (and into the model where the needs say so).
        orders: [B, M, K] int64, places of the candidates, best first, padding last.
        old_scores: [B, K] float32 that the orders were made of.
        advantages: [B, M] float32 credit of the orders.
        gains: [B, K] float32 relevance of the candidates.
        present: [B, K] bool, False for padding.
        responses: log-probabilities and advantages of the responses to the candidates that are there, set by set, N in
            all; 0 at forced tokens. None where the objective does not need them.
    """

    scores: torch.Tensor
    orders: torch.Tensor
    old_scores: torch.Tensor
    advantages: torch.Tensor
    gains: torch.Tensor
    present: torch.Tensor
    responses: PolicyBatch | None = None


class RankObjective(Objective):
    """Orders of a row's candidates, made of the scores that a head gives to the model's responses, and a loss on them.

    Attributes:
        Params: `needs` follows from a RankParams or a subclass; with another declaration, override it.
    """

    family = "rank"
    tasks = frozenset({"rank"})

    @property
    def needs(self) -> RankNeeds:
        """How responses come about, as RankParams says, and what the loss reads."""
        params = self.params
        return RankNeeds(
            sets=params.sets,
            answering=Answering(RATIONALE if params.rationale else DECISION, params.max_tokens, params.state),
            temperature=params.temperature,
            trains_model=not params.head_only,
        )

    @property
    def module_makers(self) -> Mapping[str, Callable[[int], Any]]:
        """The head: it reads hidden states [..., H] and gives scores [..., 1]. Decoders find it by its name."""
        return {RANKING_HEAD: ranking_head}

    def scores(self, states: torch.Tensor) -> torch.Tensor:
        """Return the head's scores [N] of hidden states [N, H]; gradients flow."""
        return head_scores(self.modules[RANKING_HEAD], states)

    @abstractmethod
    def orders(
        self, scores: torch.Tensor, gains: torch.Tensor, noise: torch.Tensor, present: torch.Tensor
    ) -> torch.Tensor:
        """Make the orders that are rewarded and learnt from.

        Args:
            scores: [B, K] float64.
            gains: [B, K] float64 relevance of the candidates.
            noise: [B, M, K] uniform numbers in [0, 1), the same whatever else is in the batch.
            present: [B, K] bool, False for padding.

        Returns:
            [B, M, K] int64 places of the candidates, best first, padding last.
        """

    def credit(self, rankings: Rankings) -> RankCredit:
        """Turn rewards into advantages; by default none, as a loss on the scores alone needs them.

        Rankings of all processes are gathered before this is called.
        """
        return RankCredit(rankings.rewards * 0.0, rankings.rewards[:, :, 0] * 0.0)

    @abstractmethod
    def loss(self, batch: RankBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the scalar loss and figures to log."""

    def weight(self, batch: RankBatch) -> torch.Tensor | float:
        """Return what the loss was divided by, 0 or more; by default the number of sets, B."""
        return len(batch.scores)
