"""Supervised fine-tuning: cross-entropy of the answer's tokens."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch.nn.functional import cross_entropy

from recalign.api import AnswerBatch, TokenObjective, hookimpl


class Sft(TokenObjective):
    """Mean over the answer tokens of -log p(token), p being the softmax over the whole vocabulary.

    L = -(1/S) sum_s log p(y_s | prompt, y_<s).

    Source: Bao et al., "A Bi-Step Grounding Paradigm for Large Language Models in Recommendation Systems" (BIGRec),
    2023.
    """

    tasks: ClassVar[frozenset[str]] = frozenset({"next", "list", "rank"})
    paper = "Bao et al. (BIGRec), 2023"

    def loss(self, answers: AnswerBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the mean cross-entropy per answer token; nothing else to log."""
        return cross_entropy(answers.logits, answers.labels), {}


@hookimpl
def recalign_objective() -> type[Sft]:
    """Return this plugin's class."""
    return Sft
