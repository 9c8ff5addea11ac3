"""Log-probabilities of sampled completions, with gradients, on exactly the distribution that they were sampled from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from recalign.decoding.compatibility import UNSUPPORTED, beyond_window, reason, tell
from recalign.decoding.constraint import Decisions
from recalign.decoding.scoring import masked_log_softmax, penalise
from recalign.training.logprobs.prefix_tree import PrefixTrees, prefix_trees
from recalign.training.logprobs.shared_prompt import hidden_beside_prompts, sharing_is_cheaper, tokens_needed

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
    def reach(self) -> int:
        """Tokens of the longest prompt with a completion of its own."""
        prompts = np.fromiter(map(len, self.prompts), dtype=np.int64, count=len(self.prompts))
        return int((prompts[self.groups] + self.lengths).max(initial=0))

    def take(self, rows: np.ndarray) -> Sampled:
        """Return some completions (ascending row numbers), with only the prompts that they answer."""
        if len(rows) == len(self):
            return self
        answered, groups = np.unique(self.groups[rows], return_inverse=True)
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
        return Sampled(
            [self.prompts[prompt] for prompt in answered],
            self.tokens[rows],
            self.lengths[rows],
            groups,
            decisions,
            self.temperature,
            self.repetition_penalty,
        )


class Part(NamedTuple):
    """Completions that share a pass: ascending row numbers, and the tokens that it holds at most, padding included."""

    rows: np.ndarray
    tokens: int


def microbatches(
    prompts: Sequence[np.ndarray],
    lengths: np.ndarray,
    groups: np.ndarray,
    budget: int,
    *,
    whole: bool = False,
    tree_mask: bool = True,
) -> list[Part]:
    """Cut N completions into parts that fit a budget; a prompt with many completions may be cut too.

    Args:
        prompts: [P] token ids.
        lengths: [N] completions' lengths.
        groups: [N] ascending.
        budget: maximum number of tokens per part, padding included; a longer completion makes a part of its own.
        whole: keep all completions of a prompt in one part, even beyond the budget.
        tree_mask: as in `completion_logps`; without it, every completion has a copy of its prompt.

    Returns:
        The parts; together their rows are all N, each once.
    """
    pieces: list[tuple[int, int, np.ndarray]] = []  # width, how many rows of that width, completions of one prompt
    for group, prompt in enumerate(prompts):
        rows = np.flatnonzero(groups == group)
        if tree_mask:
            room = max(budget - len(prompt), 1)
            part = np.zeros(len(rows), dtype=np.int64) if whole else (np.cumsum(lengths[rows]) - 1) // room
            cut = [rows[part == p] for p in np.unique(part)]
            pieces += [(len(prompt) + int(lengths[piece].sum()), 1, piece) for piece in cut]
        else:
            cut = [rows] if whole else np.split(rows, len(rows))
            pieces += [(len(prompt) + int(lengths[piece].max()), len(piece), piece) for piece in cut]
    pieces.sort(key=lambda piece: -piece[0])
    parts: list[list[np.ndarray]] = []
    sizes: list[tuple[int, int]] = []  # of each part: its widest piece, which comes first, and its rows
    for width, count, rows in pieces:
        if not parts or (sizes[-1][1] + count) * sizes[-1][0] > budget:
            parts.append([])
            sizes.append((width, 0))
        parts[-1].append(rows)
        sizes[-1] = (sizes[-1][0], sizes[-1][1] + count)
    return [
        Part(np.sort(np.concatenate(part)), width * count) for part, (width, count) in zip(parts, sizes, strict=True)
    ]


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
    hidden, site_of = hidden_before(model, sampled, rows, positions, tree_mask=tree_mask)
    values = _decision_logps(model, hidden, site_of, sampled)  # [E]
    return logps.index_put((decisions.rows.to(device), decisions.positions.to(device)), values)


def hidden_before(
    model: PreTrainedModel, sampled: Sampled, rows: np.ndarray, positions: np.ndarray, *, tree_mask: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the model where some tokens of completions are predicted; equal prefixes of one prompt are one site.

    Args:
        model: without its head.
        sampled: the completions (their decisions are not read).
        rows: [E] the tokens' completions.
        positions: [E] the tokens' places in their completions.
        tree_mask: as in `completion_logps`.

    Returns:
        Hidden states [D, H] of the sites, and the site [E] of each token.
    """
    if tree_mask and not beyond_window(model, sampled.reach):
        layout = (sampled.prompts, sampled.tokens, sampled.groups, rows, positions)
        trees = prefix_trees(*layout)
        needed = tokens_needed(len(sampled), rows, positions)
        if sharing_is_cheaper(model, sampled.prompts, needed, trees.input_ids.shape):
            return hidden_beside_prompts(model, *layout)
        hidden = _hidden_of_trees(model, trees)  # [B, S, H]
    else:
        trees = _one_per_row(sampled, rows, positions)
        hidden = _hidden_of_rows(model, trees)
    return hidden.flatten(0, 1)[trees.sites.to(model.device)], trees.site_of.to(model.device)


def _hidden_of_trees(model: PreTrainedModel, trees: PrefixTrees) -> torch.Tensor:
    """Run the decoder over prefix trees: hidden states [B, S, H]."""
    device = model.device
    mask = torch.zeros(trees.visible.shape, dtype=model.dtype, device=device)
    mask.masked_fill_(~trees.visible.to(device), torch.finfo(model.dtype).min)
    output = _decoder(model)(
        input_ids=trees.input_ids.to(device),
        attention_mask=mask[:, None],
        position_ids=trees.position_ids.to(device),
        use_cache=False,
    )
    return output.last_hidden_state


def _hidden_of_rows(model: PreTrainedModel, trees: PrefixTrees) -> torch.Tensor:
    """Run the decoder over padded rows: hidden states [B, S, H]."""
    device = model.device
    present = trees.visible.diagonal(dim1=1, dim2=2)
    output = _decoder(model)(
        input_ids=trees.input_ids.to(device), attention_mask=present.long().to(device), use_cache=False
    )
    return output.last_hidden_state


def _one_per_row(sampled: Sampled, rows: np.ndarray, positions: np.ndarray) -> PrefixTrees:
    """Lay out every completion after a copy of its prompt, one per row, padded on the right."""
    prompts = [sampled.prompts[group] for group in sampled.groups]
    starts = np.fromiter(map(len, prompts), dtype=np.int64, count=len(prompts))
    width = int((starts + sampled.lengths).max())
    input_ids = np.zeros((len(prompts), width), dtype=np.int64)
    for row, prompt in enumerate(prompts):
        length = int(sampled.lengths[row])
        input_ids[row, : len(prompt)] = prompt
        input_ids[row, len(prompt) : len(prompt) + length] = sampled.tokens[row, :length]
    present = np.arange(width) < (starts + sampled.lengths)[:, None]
    sites, site_of = np.unique(rows * width + starts[rows] + positions - 1, return_inverse=True)
    return PrefixTrees(
        torch.from_numpy(input_ids),
        torch.arange(width).expand(len(prompts), -1),
        torch.diag_embed(torch.from_numpy(present)),
        torch.from_numpy(sites),
        torch.from_numpy(site_of),
    )


def _decoder(model: PreTrainedModel) -> torch.nn.Module:
    """Return the model without its head; adapters live inside its layers."""
    return model.get_decoder()


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


def logits_of(model: PreTrainedModel, hidden: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Logits [D, C] of some tokens; only these rows of the head are used where the head is a linear layer."""
    head = model.get_output_embeddings()
    if type(head) is torch.nn.Linear:
        return linear(hidden, head.weight[columns], None if head.bias is None else head.bias[columns])
    return head(hidden)[:, columns]


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


def takes_tree_mask(model: PreTrainedModel) -> bool:
    """Whether a model takes prefix trees with a 4D mask; where not, users are told why."""
    obstacle = obstacle_to_tree_mask(model)
    if obstacle:
        tell(model, obstacle)
    return not obstacle


def obstacle_to_tree_mask(model: PreTrainedModel) -> str:
    """Say why a model cannot take prefix trees with a 4D mask, or "" where they give what separate rows give."""
    tokens = np.array([[1, 2, 1], [1, 1, 2], [2, 1, 1]])
    lengths = np.full(3, 3)
    rows, positions = np.divmod(np.arange(9), 3)
    decisions = Decisions(
        rows=torch.from_numpy(rows),
        positions=torch.from_numpy(positions),
        starts=torch.arange(0, 20, 2),
        tokens=torch.tensor([1, 2] * 9),
        chosen=torch.arange(0, 18, 2) + torch.from_numpy(tokens.ravel()) - 1,
    )
    sampled = Sampled([np.array([1, 2, 2]), np.array([2])], tokens, lengths, np.array([0, 0, 1]), decisions)
    with torch.no_grad():
        separate = completion_logps(model, sampled, tree_mask=False)
        try:
            shared = completion_logps(model, sampled, tree_mask=True)
        except UNSUPPORTED as error:
            return reason(error)
    same = torch.allclose(shared, separate, atol=1e-3 if model.dtype == torch.float32 else 0.1)
    return "" if same else "it reads a tree mask as something else"
