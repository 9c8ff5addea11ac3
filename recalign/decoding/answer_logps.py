"""Log-probabilities of answers' chosen tokens and the hidden states that are scored, from one pass, with gradients."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from recalign.api import Rationales
from recalign.decoding.hidden_states import PromptedCompletions, hidden_before
from recalign.decoding.microbatches import microbatches
from recalign.decoding.scoring import logits_of

CHUNK = 2**24
"""Logits held at once (64 MB in float32); with more, chunks are recomputed in the backward pass."""


def answer_logps(
    model: PreTrainedModel,
    layout: PromptedCompletions,
    answers: Rationales,
    begins: np.ndarray,
    choice: tuple[int, int],
    *,
    states: np.ndarray | None,
    temperature: float,
    budget: int,
    tree_mask: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return log pi of chosen tokens on the distribution that they were sampled from, and hidden states.

    Args:
        model: a causal language model, with or without adapters.
        layout: N completions, each a question and its answer, after U prompts.
        answers: N answers.
        begins: [N] tokens of each question.
        choice: the two tokens of which one decides.
        states: [N] places in the completions whose hidden states are wanted, or None.
        temperature: of sampling.
        budget: maximum number of tokens per forward pass, padding included.
        tree_mask: as in `hidden_before`.

    Returns:
        [N, T] float32, 0 where no token was chosen, and [N, H] or None.
    """
    rows, places = np.nonzero(answers.chosen.numpy())
    deciding = places == answers.opened.numpy()[rows] + 1
    tokens = answers.tokens.numpy()[rows, places]
    logps = torch.zeros(answers.tokens.shape, device=model.device)
    by_group = np.argsort(layout.groups, kind="stable")
    ordered = layout.take(by_group)
    read, whose = [], []
    for part in microbatches(ordered.prompts, ordered.lengths, ordered.groups, budget, tree_mask=tree_mask):
        number = np.full(len(by_group), -1)
        number[by_group[part.rows]] = np.arange(len(part.rows))
        mine = np.flatnonzero(number[rows] >= 0)
        owners, before = number[rows[mine]], begins[rows[mine]] + places[mine]
        if states is not None:  # the state at a token is that before the next one
            owners = np.concatenate([owners, np.arange(len(part.rows))])
            before = np.concatenate([before, states[by_group[part.rows]] + 1])
        hidden, site_of = hidden_before(model, ordered.take(part.rows), owners, before, tree_mask=tree_mask)
        found = _chosen_logps(model, hidden[site_of[: len(mine)]], tokens[mine], deciding[mine], choice, temperature)
        at = (torch.from_numpy(rows[mine]).to(logps.device), torch.from_numpy(places[mine]).to(logps.device))
        logps = logps.index_put(at, found)
        if states is not None:
            read.append(hidden[site_of[len(mine) :]])
            whose.append(by_group[part.rows])
    if states is None:
        return logps, None
    back = torch.from_numpy(np.argsort(np.concatenate(whose)))
    return logps, torch.cat(read)[back.to(logps.device)]


def _chosen_logps(
    model: PreTrainedModel,
    hidden: torch.Tensor,
    tokens: np.ndarray,
    deciding: np.ndarray,
    choice: tuple[int, int],
    temperature: float,
) -> torch.Tensor:
    """Log-probability [E] of each token: among two where it decides, else over the whole vocabulary.

    Args:
        model: gives the head.
        hidden: [E, H] states before the tokens.
        tokens: [E].
        deciding: [E] bool.
        choice: the two tokens that decide.
        temperature: divides the logits.
    """
    device = hidden.device
    values = hidden.new_zeros(len(tokens), dtype=torch.float32)
    two, free = (torch.from_numpy(np.flatnonzero(which)).to(device) for which in (deciding, ~deciding))
    chosen = torch.from_numpy(tokens).to(device)
    if len(two):
        logits = logits_of(model, hidden[two], torch.tensor(choice, device=device)).float() / temperature
        second = (chosen[two] == choice[1]).long()
        values = values.index_put((two,), logits.log_softmax(dim=1).gather(1, second[:, None])[:, 0])
    size = max(CHUNK // int(model.config.get_text_config().vocab_size), 1)
    head = partial(_free_logps, model, temperature)
    chunked = len(free) > size and torch.is_grad_enabled()
    for start in range(0, len(free), size):
        mine = free[start : start + size]
        arguments = (hidden[mine], chosen[mine])
        found = checkpoint(head, *arguments, use_reentrant=False) if chunked else head(*arguments)
        values = values.index_put((mine,), found)
    return values


def _free_logps(model: PreTrainedModel, temperature: float, hidden: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Log-probability of tokens over the whole vocabulary."""
    logits = model.get_output_embeddings()(hidden).float() / temperature
    return logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(dim=1)
