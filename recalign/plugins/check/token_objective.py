"""The trial of token objectives."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from recalign.api import AnswerBatch, TokenObjective, ValidTokens
from recalign.plugins.check.examples import HIDDEN, TOKENS, VOCABULARY
from recalign.plugins.check.losses import loss_problems


def problems(objective: TokenObjective) -> Iterator[str]:
    """Try the loss on two short answers; yield one line per problem."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(TOKENS, VOCABULARY, generator=random).requires_grad_()
    labels, rows = torch.tensor([1, 3, 5, 4, 0]), torch.tensor([0, 0, 0, 1, 1])
    bare = torch.randn(TOKENS, VOCABULARY, generator=random)
    thresholds = torch.tensor([-1.0, -2.0, -torch.inf, -1.5, -torch.inf])

    def part(tokens: slice, valid_tokens: ValidTokens, logits: torch.Tensor = logits) -> AnswerBatch:
        return AnswerBatch(
            logits=logits[tokens],
            labels=labels[tokens],
            rows=rows[tokens] - rows[tokens][0],
            valid_tokens=valid_tokens if objective.needs.valid_tokens or objective.needs.beam_width else None,
            logits_without_history=bare[tokens] if objective.needs.without_history else None,
            beam_thresholds=thresholds[tokens] if objective.needs.beam_width else None,
            hidden=logits[tokens, :HIDDEN] if objective.needs.hidden_states else None,
        )

    first, second = torch.tensor([1, 2]), torch.tensor([0, 4, 7])  # valid tokens at the beginnings of both answers
    whole = ValidTokens(torch.tensor([0, 3]), torch.tensor([0, 2, 5]), torch.cat([first, second]))
    alone = [ValidTokens(torch.tensor([0]), torch.tensor([0, len(each)]), each) for each in (first, second)]
    parts = [part(slice(3), alone[0]), part(slice(3, None), alone[1])]
    yield from loss_problems(
        objective, part(slice(None), whole), parts, logits, lambda inputs: part(slice(None), whole, inputs)
    )
