"""CFT: cross-entropy of the answer, and of what the history adds to the logits of the answer."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from recalign.api import AnswerBatch, Field, Params, TokenNeeds, TokenObjective, hookimpl


class CftParams(Params):
    """Parameters of CFT."""

    alpha: float = Field(0.1, ge=0, description="weight of the causal term; 0: none")
    beta: float = Field(0.25, gt=0, le=1, description="weight of an answer's last token, falling linearly from 1")


class Cft(TokenObjective):
    """L = sum_t w_t [ CE(z_t) + alpha * CE(z_t - z0_t) ] / sum_t w_t.

    z are the logits of the answer's tokens, z0 those of the same answer after a prompt without the history: their
    difference is the effect of the history, and the second term asks that it alone tell the answer. Gradients flow
    through both. The weights fall over the T tokens of an answer, w_t = 1 - (1 - beta) (t - 1) / (T - 1), because later
    tokens of a title follow from earlier ones more than from the history.

    Source: Zhang et al., "Causality-Enhanced Behavior Sequence Modeling in LLMs for Personalized Recommendation" (CFT),
    2024.
    Differs from the official code: an answer of one token has weight 1, where the code divides by zero.
    """

    Params = CftParams
    paper = "Zhang et al., 2024"

    @property
    def needs(self) -> TokenNeeds:
        """Logits without the history where the effect counts; responses, as the weights are those of their tokens."""
        return TokenNeeds(without_history=self.params.alpha > 0, responses_only=True)

    def loss(self, answers: AnswerBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss, with its two terms."""
        weights = falling_weights(answers.rows, self.params.beta)
        plain = _weighted(answers.logits, answers.labels, weights)
        if not self.needs.without_history:
            return plain, {"plain_loss": plain.item()}
        assert answers.logits_without_history is not None, "handed over where needs.without_history is set"
        effect = _weighted(answers.logits - answers.logits_without_history, answers.labels, weights)
        return plain + self.params.alpha * effect, {"plain_loss": plain.item(), "effect_loss": effect.item()}

    def weight(self, answers: AnswerBatch) -> torch.Tensor:
        """Return the sum of the tokens' weights."""
        return falling_weights(answers.rows, self.params.beta).sum()


def falling_weights(rows: torch.Tensor, last: float) -> torch.Tensor:
    """[S] weights that fall linearly from 1 at the first token of each row to `last` at its last one.

    Args:
        rows: [S] the row of each token, row by row.
        last: weight of the last token; a row's only token has weight 1.
    """
    _, lengths = rows.unique_consecutive(return_counts=True)
    steps = lengths.repeat_interleave(lengths) - 1  # [S]
    starts = (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
    place = torch.arange(len(rows), device=rows.device) - starts
    return 1 - (1 - last) * place / steps.clamp_min(1)


def _weighted(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return (weights * cross_entropy(logits, labels, reduction="none")).sum() / weights.sum()


@hookimpl
def recalign_objective() -> type[Cft]:
    """Return this plugin's class."""
    return Cft
