"""BEAR: cross-entropy plus a pull of each target token above the beam's pruning threshold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import distributed
from torch.nn.functional import cross_entropy, logsigmoid

from recalign.api import AnswerBatch, Field, Params, TokenNeeds, TokenObjective, hookimpl
from recalign.objectives.msl import choices


class PruningParams(Params):
    """Parameters of the objectives that weigh tokens by how near the beam is to dropping them."""

    beam: int = Field(10, ge=1, description="B: the beam width that decoding will use")
    weight: float = Field(1.0, ge=0.1, le=5, description="lambda, the weight of the pruning term")
    temperature: float = Field(1.0, ge=0.25, le=3, description="xi, the temperature of the pruning term's sigmoid")
    normalise: Literal["weights", "tokens"] = Field(
        "weights",
        description="weights: each token's cross-entropy times its share of the batch's weights, as in the official "
        "code; tokens: the paper's sum, divided by the number of answer tokens",
    )


class BearParams(PruningParams):
    """Parameters of BEAR."""

    constrained: bool = Field(
        True, description="probabilities over the catalogue's valid tokens, as in the official code (false: all tokens)"
    )
    stop_gradient: bool = Field(
        True,
        description="beta_t and, where they normalise, the weights are constants to the gradient, as in the official "
        "code (false: gradients flow through both)",
    )


class Bear(TokenObjective):
    """L = L_sft + lambda * sum_t log sigmoid((log beta_t - log p_t) / xi).

    beta_t is the B-th highest next-token probability (where fewer than B tokens are valid: the smallest valid one), a
    constant to the gradient (`stop_gradient`). The gradient is then that of the cross-entropy with token weights

        w_t = 1 + (lambda / xi) * sigmoid((log p_t - log beta_t) / xi)

    so `normalise="weights"` is sum_t w_t CE_t / sum_t w_t with constant w_t; forced tokens are in neither sum.

    Source: Yang et al., "BEAR: Towards Beam-Search-Aware Optimization for Recommendation with Large Language Models",
    SIGIR 2026, Eq. 3.2-3.5.
    Differs from the paper: as the official code does, probabilities run over the valid tokens (MSL) and the weights are
    divided by their sum; `constrained=false` and `normalise=tokens` give the paper's form. With `constrained=false` no
    token is forced, and every token is in the sum of the weights.
    Differs from the official code: its weights are 1 + lambda * sigmoid(...), without the 1 / xi of the gradient.
    """

    Params = BearParams
    paper = "Yang et al., SIGIR 2026, Eq. 3.2-3.5"

    def __init__(self, params: Any = None, *, name: str = "") -> None:
        super().__init__(params, name=name)
        self.whole_loss: float | None = None  # of the update that was surveyed last

    @property
    def holds_constant(self) -> bool:
        """The thresholds and the weights, with `stop_gradient`."""
        return bool(self.params.stop_gradient)

    @property
    def needs(self) -> TokenNeeds:
        """The valid tokens where probabilities run over them; a survey where the weights normalise and have a gradient.

        That gradient depends on the loss over the whole update.
        """
        survey = self.params.normalise == "weights" and not self.params.stop_gradient
        return TokenNeeds(valid_tokens=self.params.constrained, survey=survey)

    def loss(self, answers: AnswerBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss, with the mean weight and the share of choices in which the beam would drop the target."""
        losses, margins, weights = self._weighed(answers)
        if self.params.normalise == "weights":
            value = self._normalised((weights * losses).sum(), weights.sum())
        else:
            pruning = logsigmoid(-margins / self.params.temperature)
            value = (losses + self.params.weight * pruning).sum() / max(len(answers.labels), 1)
        count = max(len(losses), 1)
        metrics = {
            "mean_weight": float(weights.detach().sum()) / count,
            "pruned_share": float((margins < 0).sum()) / count,
            "choice_share": len(losses) / max(len(answers.labels), 1),
        }
        return value, metrics

    def weight(self, answers: AnswerBatch) -> torch.Tensor | float:
        """Return the sum of the tokens' weights, where they normalise, else the number of answer tokens."""
        return self._weighed(answers)[2].sum() if self.params.normalise == "weights" else super().weight(answers)

    def survey(self, batches: Iterable[AnswerBatch]) -> None:
        """Find the loss over the whole update."""
        sums = [
            torch.stack([(weights * losses).sum(), weights.sum()]) for losses, _, weights in map(self._weighed, batches)
        ]
        total = torch.stack(sums).double().sum(dim=0)
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(total)
        self.whole_loss = float(total[0] / total[1].clamp_min(1.0))

    def _normalised(self, total: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Divide the weighted sum of a batch, which may be a part of an update's, by its weights.

        With N and W the sums over the update, the gradient of N / W is (N' - (N / W) W') / W: a sum over its parts once
        N / W is known. So the gradient of this value, times its weight, is the part's share of it.
        """
        divisor = weight.detach().clamp_min(1.0)
        mean = total.detach() / divisor if self.whole_loss is None else self.whole_loss
        return (total - mean * (weight - weight.detach())) / divisor

    def _weighed(self, answers: AnswerBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Cross-entropy, log p - log beta, and weights, each [R] where there is a choice."""
        losses, thresholds = self._constrained(answers) if self.params.constrained else self._full(answers)
        if self.params.stop_gradient:
            thresholds = thresholds.detach()
        margins = -losses - thresholds
        xi, seen = self.params.temperature, margins.detach() if self.params.stop_gradient else margins
        return losses, margins, 1 + self.params.weight / xi * torch.sigmoid(seen / xi)

    def _constrained(self, answers: AnswerBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy over the valid tokens and log beta, both [R], where there is a choice."""
        valid = choices(answers)
        losses = valid.cross_entropy()
        if not len(losses):
            return losses, losses
        width = min(self.params.beam, valid.logits.shape[-1])
        best = valid.logits.topk(width).values  # [R, B]
        last = (valid.counts.clamp(max=width) - 1)[:, None]
        return losses, best.gather(-1, last).squeeze(-1) - (losses + valid.chosen)

    def _full(self, answers: AnswerBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy over the vocabulary and log beta, both [S]."""
        losses = cross_entropy(answers.logits, answers.labels, reduction="none")
        width = min(self.params.beam, answers.logits.shape[-1])
        chosen = answers.logits.gather(-1, answers.labels[:, None]).squeeze(-1)
        return losses, answers.logits.topk(width).values[:, -1] - (losses + chosen)


@hookimpl
def recalign_objective() -> type[Bear]:
    """Return this plugin's class."""
    return Bear
