"""Masked softmax loss (MSL): cross-entropy over the catalogue's valid next tokens only."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed

from recalign.api import AnswerBatch, Field, Params, TokenNeeds, TokenObjective, hookimpl

FIRST_TOKEN_SHARE = 0.25  # the adaptive temperature aims at a target that beats a quarter of the first tokens
TEMPERATURE_BOUNDS = (1.5, 5.0)
MOVING_AVERAGE = 0.05


@dataclass(frozen=True)
class Choices:
    """The R answer positions at which more than one token is valid; everywhere else the token is forced.

    Args:
        positions: [R] int64, in the AnswerBatch.
        logits: [R, C] of the valid tokens, -inf in the padding; gradients flow.
        chosen: [R] logits of the labels; gradients flow.
        counts: [R] how many tokens are valid.
    """

    positions: torch.Tensor
    logits: torch.Tensor
    chosen: torch.Tensor
    counts: torch.Tensor

    def cross_entropy(self, temperature: float = 1.0) -> torch.Tensor:
        """[R] -log p of the labels, p being the softmax over the valid tokens."""
        return (self.logits / temperature).logsumexp(-1) - self.chosen / temperature


def choices(answers: AnswerBatch) -> Choices:
    """Gather the logits of the valid tokens at the positions where there is a choice; [S, V] is never masked."""
    assert answers.valid_tokens is not None, "handed over where needs.valid_tokens is set"
    positions = answers.valid_tokens.positions  # [R]
    tokens, present = answers.valid_tokens.padded()  # [R, C]
    labels = answers.labels[positions]
    assert bool((present & (tokens == labels[:, None])).any(-1).all()), "a label is no valid token"
    offsets = positions * answers.logits.shape[-1]
    logits = answers.logits.take(offsets[:, None] + tokens).masked_fill(~present, -torch.inf)
    return Choices(positions, logits, answers.logits.take(offsets + labels), answers.valid_tokens.counts)


class MslParams(Params):
    """Parameters of MSL."""

    temperature: float = Field(
        1.0, gt=0, le=10, description="tau, divides the logits; the paper's useful range is 1 to 4.5"
    )
    adaptive: bool = Field(False, description="estimate tau from the first tokens' logits, update by update")
    count_forced: bool | None = Field(
        None,
        description="forced tokens, whose loss is 0, count in the mean over tokens (default, as in the official code: "
        "yes, and no with adaptive)",
    )

    @property
    def counts_forced(self) -> bool:
        """Whether forced tokens count in the mean."""
        return not self.adaptive if self.count_forced is None else self.count_forced


class Msl(TokenObjective):
    """Mean over the answer tokens of -z_y / tau + logsumexp over the valid tokens of z / tau.

    The softmax that is trained is the one that constrained decoding uses. A forced token (one valid token) adds 0; it
    counts in the mean, but not with `adaptive`, as in the official code (`count_forced`).

    With `adaptive`, tau follows from the first tokens of the update's answers, n_first valid ones each:
    C = ln(0.25 n_first), d = mean z_y - mean z_valid, tau = (d + sqrt(max(0, d^2 - 2 C var z_valid))) / (2 C), clipped
    to [1.5, 5], as a moving average with rate 0.05; the loss is multiplied by tau, so that gradients keep their scale.
    Several processes estimate one tau together.

    Source: Wang et al., "MSL: Not All Tokens Are What You Need for Tuning LLM as a Recommender", SIGIR 2025.
    Differs from the paper: with at most 4 valid first tokens C is not positive and tau stays as it was.
    Differs from the official code: the moving average begins at the first estimate, not at 1.5; the variance is that
    within a row, where the code's also counts what rows differ by, to which a softmax is blind.
    """

    Params = MslParams
    paper = "Wang et al., SIGIR 2025"

    def __init__(self, params: Any = None, *, name: str = "") -> None:
        super().__init__(params, name=name)
        self.temperature = self.params.temperature
        self.estimates = 0

    def loss(self, answers: AnswerBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the mean loss per answer token, with the temperature and the share of tokens that were a choice.

        Raises:
            AssertionError: a label that is not among its valid tokens.
        """
        valid = choices(answers)
        total = valid.cross_entropy(self.temperature).sum()
        if self.params.adaptive:
            total = total * self.temperature
        value = total / max(self.weight(answers), 1)
        metrics = {
            "temperature": self.temperature,
            "choice_share": len(valid.positions) / max(len(answers.labels), 1),
        }
        return value, metrics

    def weight(self, answers: AnswerBatch) -> int:
        """Return the number of tokens that count in the mean."""
        assert answers.valid_tokens is not None, "handed over where needs.valid_tokens is set"
        return len(answers.labels) if self.params.counts_forced else len(answers.valid_tokens.positions)

    @property
    def needs(self) -> TokenNeeds:
        """The valid tokens; a survey where the temperature is estimated, once per update from all of its rows."""
        return TokenNeeds(valid_tokens=True, survey=self.params.adaptive)

    @torch.no_grad()
    def survey(self, batches: Iterable[AnswerBatch]) -> None:
        """Move the temperature to what the first tokens of the update's answers, in all processes, suggest."""
        sums = torch.stack([_first_token_sums(answers) for answers in batches]).sum(dim=0)
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(sums)
        rows, *totals = sums.tolist()
        if not rows:
            return
        count, chosen, mean, variance = (total / rows for total in totals)
        target, gap = math.log(count * FIRST_TOKEN_SHARE), chosen - mean
        if target <= 0:
            return
        root = math.sqrt(max(0.0, gap * gap - 2 * target * variance))
        low, high = TEMPERATURE_BOUNDS
        estimate = min(max((gap + root) / (2 * target), low), high)
        rate = MOVING_AVERAGE if self.estimates else 1.0
        self.temperature += rate * (estimate - self.temperature)
        self.estimates += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the running temperature."""
        return {"temperature": self.temperature, "estimates": self.estimates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the running temperature."""
        self.temperature, self.estimates = float(state["temperature"]), int(state["estimates"])


def _first_token_sums(answers: AnswerBatch) -> torch.Tensor:
    """[5] float64 sums over the rows whose first token is a choice: 1, valid tokens, z_y, mean z, variance of z."""
    valid = choices(answers)
    first = first_tokens(answers.rows)[valid.positions]
    logits, counts = valid.logits[first].double(), valid.counts[first].double()  # [F, C], [F]
    present = logits.isfinite()
    values = logits.masked_fill(~present, 0.0)
    means = values.sum(-1) / counts
    variances = ((values - means[:, None]) * present).square().sum(-1) / counts
    return torch.stack([torch.ones_like(counts), counts, valid.chosen[first].double(), means, variances]).sum(dim=1)


def first_tokens(rows: torch.Tensor) -> torch.Tensor:
    """[S] bool, True at the first answer token of each row; `rows` [S] names the row of each token, row by row."""
    first = torch.ones_like(rows, dtype=torch.bool)
    first[1:] = rows[1:] != rows[:-1]
    return first


@hookimpl
def recalign_objective() -> type[Msl]:
    """Return this plugin's class."""
    return Msl
