"""Slow, plain versions of what the engine does: enumerate every response, score it with full forward passes."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import permutations

import numpy as np
import torch

from recalign.text.item_tokens import TitleTokens


def all_responses(titles: TitleTokens, list_length: int, excluded: Iterable[int] = ()) -> dict[tuple[int, ...], tuple]:
    """Every response of K different items: its tokens -> its items."""
    items = [item for item in range(len(titles.paths)) if item not in set(excluded)]
    return {tuple(titles.response(chosen).tolist()): chosen for chosen in permutations(items, list_length)}


def next_tokens(responses: Iterable[tuple[int, ...]], prefix: tuple[int, ...]) -> list[int]:
    """The tokens that continue a prefix towards some response."""
    return sorted({r[len(prefix)] for r in responses if len(r) > len(prefix) and r[: len(prefix)] == prefix})


@torch.no_grad()
def token_logps(
    model, prompt: np.ndarray, response: tuple[int, ...], responses: Iterable[tuple[int, ...]] | None, temperature=1.0
) -> np.ndarray:
    """[T] log-probability of each token of a response, renormalised over the valid ones (or over the vocabulary)."""
    tokens = torch.tensor([[*prompt.tolist(), *response]])
    scores = (model(tokens).logits[0, len(prompt) - 1 : -1] / temperature).double()
    logps = []
    for step, token in enumerate(response):
        valid = range(scores.shape[1]) if responses is None else next_tokens(responses, response[:step])
        logps.append(float(scores[step, token] - scores[step, list(valid)].logsumexp(0)))
    return np.array(logps)
