"""IGD tuning: tokens that decide nothing weigh less."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from recalign.api import AnswerBatch, Field, Params, TokenNeeds, TokenObjective, ValidTokens, hookimpl


class IgdParams(Params):
    """Parameters of IGD tuning."""

    beta: float = Field(0.1, ge=0, le=1, description="weight of forced tokens, which tell nothing about the item")


class Igd(TokenObjective):
    """L = sum_t w_t CE_t / sum_t w_t, with w_t = beta where the information gain of the token is 0, else 1.

    The information gain is the fall of the entropy over items, weighted by training frequency, from one prefix of the
    title to the next. It is 0 where the token is forced.

    Source: Lin et al., "IGD: Token Decisiveness Modeling via Information Gain in LLMs for Personalized
    Recommendation", NeurIPS 2025.
    Differs from the official code: a token is forced where one token is valid, told from the catalogue rather than by
    comparing floats with 0; tokens that lead to items unseen in training keep the weight 1.
    """

    Params = IgdParams
    paper = "Lin et al., NeurIPS 2025"

    @property
    def needs(self) -> TokenNeeds:
        """The valid tokens."""
        return TokenNeeds(valid_tokens=True)

    def loss(self, answers: AnswerBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss, with the share of tokens that were a choice."""
        assert answers.valid_tokens is not None, "handed over where needs.valid_tokens is set"
        weights = self._weights(answers.labels, answers.valid_tokens)
        losses = cross_entropy(answers.logits, answers.labels, reduction="none")
        # A batch of forced tokens alone has no weight where beta is 0, and then no loss.
        value = (weights * losses).sum() / weights.sum().clamp_min(torch.finfo(weights.dtype).tiny)
        return value, {"choice_share": len(answers.valid_tokens.positions) / max(len(answers.labels), 1)}

    def weight(self, answers: AnswerBatch) -> torch.Tensor:
        """Return the sum of the tokens' weights."""
        assert answers.valid_tokens is not None, "handed over where needs.valid_tokens is set"
        return self._weights(answers.labels, answers.valid_tokens).sum()

    def _weights(self, labels: torch.Tensor, valid_tokens: ValidTokens) -> torch.Tensor:
        """[S] float32 weights of the tokens."""
        weights = torch.full_like(labels, self.params.beta, dtype=torch.float32)
        weights[valid_tokens.positions] = 1.0
        return weights


@hookimpl
def recalign_objective() -> type[Igd]:
    """Return this plugin's class."""
    return Igd
