"""Log-probabilities of sampled completions, with gradients, on exactly the distribution that they were sampled from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from recalign.decoding.constraint import Decisions
from recalign.decoding.hidden_states import PromptedCompletions, hidden_before
from recalign.decoding.scoring import logits_of, masked_log_softmax, penalise

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHUNK = 2**22
"""Logits held at once (16 MB in float32); with more, chunks are recomputed in the backward pass."""


@dataclass(frozen=True)
class Sampled:
    """N completions of P prompts, with their decisions: all that their log-probabilities depend on besides the model.

    Args:
        prompts: [P] token ids.
        tokens: [N, T] int64, on the CPU.
        lengths: [N] int64, the end token included.
        groups: [N] int64 which prompt each completion answers.
        decisions: where more than one token was valid, and which were.
        temperature: of sampling.
        repetition_penalty: of sampling, over the prompt's and the completion's own tokens, as in transformers.
    """

    prompts: Sequence[np.ndarray]
    tokens: np.ndarray
    lengths: np.ndarray
    groups: np.ndarray
    decisions: Decisions
    temperature: float = 1.0
    repetition_penalty: float = 1.0

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def layout(self) -> PromptedCompletions:
        """The prompts and completions without what they were sampled with."""
        return PromptedCompletions(self.prompts, self.tokens, self.lengths, self.groups)

    def take(self, rows: np.ndarray) -> Sampled:
        """Return some completions (ascending row numbers), with only the prompts that they answer."""
        if len(rows) == len(self):
            return self
        old = self.decisions
        new_row = np.full(len(self), -1, dtype=np.int64)
        new_row[rows] = np.arange(len(rows))
        new_row_of = torch.from_numpy(new_row).to(old.rows.device)[old.rows]
        keep = new_row_of >= 0
        counts = old.starts.diff()
        starts = torch.cat([old.starts[:1] * 0, counts[keep].cumsum(0)])
        shift = starts[:-1] - old.starts[:-1][keep]
        decisions = type(old)(
            new_row_of[keep],
            old.positions[keep],
            starts,
            old.tokens[keep.repeat_interleave(counts)],
            old.chosen[keep] + shift,
        )
        return Sampled(*self.layout.take(rows), decisions, self.temperature, self.repetition_penalty)


def completion_logps(model: PreTrainedModel, sampled: Sampled, *, tree_mask: bool = True) -> torch.Tensor:
    """Return log pi(token | prompt, tokens before) over the valid tokens, at sampling temperature.

    Forced tokens (one valid choice) have log-probability 0. Each prompt is encoded once, completions that begin alike
    share what they share, and only the columns of the head that are valid somewhere are computed.

    Args:
        model: a causal language model, with or without adapters; gradients flow into it.
        sampled: the completions.
        tree_mask: False runs every completion in a row of its own, for architectures that take no 4D attention mask; so
            do those that look back less far than the completions reach.

    Returns:
        [N, T] float32; 0 at forced tokens and padding.
    """
    decisions = sampled.decisions
    rows, positions = decisions.rows.cpu().numpy(), decisions.positions.cpu().numpy()
    device = model.device
    logps = torch.zeros(sampled.tokens.shape, device=device)
    if not len(rows):
        return logps
    hidden, site_of = hidden_before(model, sampled.layout, rows, positions, tree_mask=tree_mask)
    values = _decision_logps(model, hidden, site_of, sampled)  # [E]
    return logps.index_put((decisions.rows.to(device), decisions.positions.to(device)), values)


def _decision_logps(
    model: PreTrainedModel, hidden: torch.Tensor, site_of: torch.Tensor, sampled: Sampled
) -> torch.Tensor:
    """Log-probability of each decision's own token among the valid ones.

    Args:
        model: gives the head.
        hidden: [D, H] at the sites.
        site_of: [E] the site of each decision.
        sampled: the completions and what they were sampled with.

    Returns:
        [E] float32.
    """
    device = hidden.device
    decisions = sampled.decisions
    starts, tokens = decisions.starts.to(device), decisions.tokens.to(device)
    order = torch.argsort(site_of, stable=True)
    first = torch.ones(len(order), dtype=torch.bool, device=device)
    first[1:] = site_of[order][1:] != site_of[order][:-1]
    speaker = order[first]  # [D] one decision of each site: their valid tokens are the same

    counts = starts.diff()[speaker]
    edge = torch.arange(int(counts.sum()), device=device)
    edge += (starts[speaker] - counts.cumsum(0) + counts).repeat_interleave(counts)
    used = torch.zeros(int(tokens.max()) + 1, dtype=torch.bool, device=device)
    used[tokens[edge]] = True
    columns, column_of = used.nonzero()[:, 0], used.cumsum(0) - 1  # [C] token ids, and token id -> column
    valid = torch.zeros((len(speaker), len(columns)), dtype=torch.bool, device=device)  # [D, C]
    valid[torch.arange(len(speaker), device=device).repeat_interleave(counts), column_of[tokens[edge]]] = True
    seen = None
    if sampled.repetition_penalty != 1.0:
        seen = _seen_tokens(sampled, speaker.cpu().numpy(), columns.cpu().numpy()).to(device)

    chosen = column_of[tokens[decisions.chosen.to(device)]]  # [E]
    size = max(CHUNK // len(columns), 1)
    chunked = len(speaker) > size and torch.is_grad_enabled()
    head = partial(_valid_logps, model, columns, sampled.temperature, sampled.repetition_penalty)
    parts = []
    for begin in range(0, len(speaker), size):
        end = begin + size
        mine = order[(site_of[order] >= begin) & (site_of[order] < end)]
        arguments = (
            hidden[begin:end],
            valid[begin:end],
            None if seen is None else seen[begin:end],
            site_of[mine] - begin,
            chosen[mine],
        )
        parts.append(checkpoint(head, *arguments, use_reentrant=False) if chunked else head(*arguments))
    return torch.cat(parts)[torch.argsort(order)]


def _valid_logps(
    model: PreTrainedModel,
    columns: torch.Tensor,
    temperature: float,
    penalty: float,
    hidden: torch.Tensor,
    valid: torch.Tensor,
    seen: torch.Tensor | None,
    site: torch.Tensor,
    chosen: torch.Tensor,
) -> torch.Tensor:
    """Log-softmax over the valid columns at some sites, picked at (site, chosen)."""
    logits = logits_of(model, hidden, columns).float()  # [D, C]
    if seen is not None:
        logits = penalise(logits, seen, penalty)
    return masked_log_softmax(logits / temperature, valid)[site, chosen]


def _seen_tokens(sampled: Sampled, speaker: np.ndarray, columns: np.ndarray) -> torch.Tensor:
    """[D, C] bool: which columns' tokens occur in the prompt or before each site's decision in its completion."""
    rows = sampled.decisions.rows.cpu().numpy()[speaker]
    positions = sampled.decisions.positions.cpu().numpy()[speaker]
    prompt_seen = np.stack([np.isin(columns, prompt) for prompt in sampled.prompts])  # [P, C]
    seen = prompt_seen[sampled.groups[rows]]
    before = np.arange(sampled.tokens.shape[1]) < positions[:, None]  # [D, T]
    site, place = np.nonzero(before)
    token = sampled.tokens[rows[site], place]
    column = np.searchsorted(columns, token).clip(max=len(columns) - 1)
    known = columns[column] == token
    seen[site[known], column[known]] = True
    return torch.from_numpy(seen)
