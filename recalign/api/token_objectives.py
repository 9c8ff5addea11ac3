"""Token objectives: losses on the answers of the data."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recalign.api.objectives import Objective
from recalign.data.questions import AnswerFormat

if TYPE_CHECKING:
    import torch


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
class TokenNeeds:
    """What a token objective is to be handed.

    Args:
        valid_tokens: the trie's valid next tokens (`AnswerBatch.valid_tokens`).
        without_history: `AnswerBatch.logits_without_history`, which takes a second forward pass.
        beam_width: width of the beam search whose thresholds are handed over (`AnswerBatch.beam_thresholds`); 0: none.
        survey: a call of `survey` before the losses of an update; with several batches per update that takes another
            forward pass of each.
        responses_only: the loss means something on responses only, not on the tokens of prompts; so it is wherever
            something is handed over that only responses have.
        hidden_states: `AnswerBatch.hidden`, for a module beside the model (`Objective.module_makers`).
        form: how questions about single candidates are answered, where the task asks some; None: as the model does.
        negatives: of each row's candidates, those that are asked about beside its positive.
    """

    valid_tokens: bool = False
    without_history: bool = False
    beam_width: int = 0
    survey: bool = False
    responses_only: bool = False
    hidden_states: bool = False
    form: AnswerFormat | None = None
    negatives: int = 1

    def __post_init__(self) -> None:
        if self.valid_tokens or self.without_history or self.beam_width:
            object.__setattr__(self, "responses_only", True)


@dataclass(frozen=True)
class AnswerBatch:
    """The S answer tokens of a batch of rows, laid end to end.

    Args:
        logits: [S, V] float32, at the position before each answer token; gradients flow.
        labels: [S] int64 token ids.
        rows: [S] which row of the batch each token belongs to.
        valid_tokens: the trie's valid next tokens, or None where the objective does not need them.
        logits_without_history: [S, V] float32, as `logits`, for the same answers after prompts with an empty history;
            None where the objective does not need them. Gradients flow.
        beam_thresholds: [S] float32, what the log-probability of the answer's prefix, renormalised over valid tokens,
            must reach after this token to stay in a beam search with the present policy; -inf where the search had
            nothing to choose and the answer neither. None where the objective does not need them.
        hidden: [S, H], the model's last hidden state at the position before each answer token, or None where the
            objective does not need it. Gradients flow.
    """

    logits: torch.Tensor
    labels: torch.Tensor
    rows: torch.Tensor
    valid_tokens: ValidTokens | None = None
    logits_without_history: torch.Tensor | None = None
    beam_thresholds: torch.Tensor | None = None
    hidden: torch.Tensor | None = None


class TokenObjective(Objective):
    """A loss on the answer's tokens."""

    family = "token"

    @property
    def needs(self) -> TokenNeeds:
        """What the trainer must hand over beside the logits; by default nothing."""
        return TokenNeeds()

    def survey(self, batches: Iterable[AnswerBatch]) -> None:
        """Look at an update's batches before the losses are asked for, for what no part can tell by itself.

        Args:
            batches: all of the update's in this process, without gradients; each can be gone through once. What other
                processes have, the objective gathers itself (torch.distributed).
        """

    @abstractmethod
    def loss(self, answers: AnswerBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the scalar loss and figures to log; validation asks for it too, so nothing of the objective moves."""

    def weight(self, answers: AnswerBatch) -> torch.Tensor | float:
        """Return what the loss was divided by, 0 or more; by default the number of answer tokens, S."""
        return len(answers.labels)
