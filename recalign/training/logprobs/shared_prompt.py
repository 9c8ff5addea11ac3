"""Completions in lanes beside the prompt that they share, for training: gradients flow, and nothing is S x S.

One sequence holds the prompts, each once, and then the completions, one lane each, so that the linear layers see every
token once. A lane attends to its prompt's keys and to its own. A packed tree (see `packing`) also shares beginnings
among completions, but its tokens attend to S slots of which they may see few: long completions are better off in lanes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from recalign.decoding.compatibility import obstacle_to_sharing
from recalign.decoding.shared_attention import Grid, shared

CLEARLY = 1.1
"""Lanes are chosen where trees would cost so many times as much."""
_TAKES_SHARED_PROMPTS: WeakKeyDictionary[torch.nn.Module, bool] = WeakKeyDictionary()


@dataclass(frozen=True)
class _SharedPromptPass:
    """One forward pass over the M tokens of prompts and lanes; the pass that `shared_attention` asks.

    Args:
        first: how many of the M tokens are prompts'.
        prompts: grid [P, L] of the prompts' tokens.
        lanes: grid [A, T] of the lanes' tokens, counted from `first`.
        owner: [A] prompt of each lane.
        visible: [A, 1, T, L + T] bool, what a lane's tokens see of its prompt and of itself.
    """

    first: int
    prompts: Grid
    lanes: Grid
    owner: torch.Tensor
    visible: torch.Tensor

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        """Return the attention of the queries [Hq, M, D] over keys and values [H, M, D]: [M, Hq, D]."""
        gqa = query.shape[0] != key.shape[0]
        begin = [part[:, : self.first][:, self.prompts.index].transpose(0, 1) for part in (query, key, value)]
        read = F.scaled_dot_product_attention(*begin, is_causal=True, scale=scaling, enable_gqa=gqa)  # [P, Hq, L, D]
        read = read.transpose(1, 2).flatten(0, 1)[self.prompts.back]
        if not len(self.owner):
            return read
        own = [part[:, self.first :][:, self.lanes.index].transpose(0, 1) for part in (query, key, value)]
        keys, values = (torch.cat([b[self.owner], o], dim=2) for b, o in zip(begin[1:], own[1:], strict=True))
        out = F.scaled_dot_product_attention(
            own[0], keys, values, attn_mask=self.visible, scale=scaling, enable_gqa=gqa
        )  # [A, Hq, T, D]
        return torch.cat([read, out.transpose(1, 2).flatten(0, 1)[self.lanes.back]])


def sharing_is_cheaper(
    model: PreTrainedModel,
    prompts: Sequence[np.ndarray],
    needed: np.ndarray,
    trees: tuple[int, int],
) -> bool:
    """Compare the multiplications of lanes with those of packed trees, which share beginnings among completions.

    Args:
        model: its width says what linear layers cost beside attention.
        prompts: [P] token ids.
        needed: [N] how many of each completion's tokens are read.
        trees: rows and slots of the packed trees.

    Returns:
        False too where the model takes no shared attention.
    """
    linear = 12.0 * model.config.get_text_config().hidden_size  # a layer's matrices, by token and unit of width
    length = np.fromiter(map(len, prompts), dtype=np.float64, count=len(prompts))
    rows, slots = trees
    tree = rows * slots * (linear + 2.0 * slots)
    longest = float(needed.max(initial=0))
    pairs = (length**2).sum() + (needed > 0).sum() * longest * (length.max() + longest)
    lanes = (length.sum() + needed.sum()) * linear + 2.0 * pairs
    return bool(tree > CLEARLY * lanes) and takes_shared_prompts(model)


def takes_shared_prompts(model: PreTrainedModel) -> bool:
    """Whether the model takes the shared attention; tried once a model."""
    if model not in _TAKES_SHARED_PROMPTS:
        _TAKES_SHARED_PROMPTS[model] = not obstacle_to_sharing(model)
    return _TAKES_SHARED_PROMPTS[model]


def tokens_needed(count: int, rows: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """[N] how many tokens of each of `count` completions stand before its last predicted one."""
    needed = np.zeros(count, dtype=np.int64)
    np.maximum.at(needed, rows, positions)
    return needed


def hidden_beside_prompts(
    model: PreTrainedModel,
    prompts: Sequence[np.ndarray],
    tokens: np.ndarray,
    groups: np.ndarray,
    rows: np.ndarray,
    positions: np.ndarray,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the model where some tokens of completions are predicted.

    Args:
        model: takes the shared attention; its head is not run.
        prompts: [P] token ids.
        tokens: [N, T] completions.
        groups: [N] which prompt each completion answers.
        rows: [E] the predicted tokens' completions.
        positions: [E] the predicted tokens' places in their completions.

    Returns:
        Hidden states [D, H] of the sites, and the site [E] of each predicted token.
    """
    needed = tokens_needed(len(tokens), rows, positions)
    lane_rows = np.flatnonzero(needed)
    lane_tokens, owner = needed[lane_rows], groups[lane_rows]
    lengths = np.fromiter(map(len, prompts), dtype=np.int64, count=len(prompts))
    lane_starts = lengths.sum() + lane_tokens.cumsum() - lane_tokens
    lane = np.repeat(np.arange(len(lane_rows)), lane_tokens)
    step = np.arange(len(lane)) - np.repeat(lane_tokens.cumsum() - lane_tokens, lane_tokens)
    flat = np.concatenate([*prompts, tokens[lane_rows[lane], step]]).astype(np.int64)
    place = np.concatenate([*map(np.arange, lengths), lengths[owner[lane]] + step])

    start_of = np.zeros(len(tokens), dtype=np.int64)
    start_of[lane_rows] = lane_starts
    before = np.where(positions == 0, lengths.cumsum()[groups[rows]] - 1, start_of[rows] + positions - 1)
    sites, site_of = np.unique(before, return_inverse=True)

    device = model.device
    columns, longest = int(lengths.max()), int(lane_tokens.max(initial=0))
    of_prompt = torch.arange(columns) < torch.from_numpy(lengths[owner])[:, None, None]  # [A, 1, L]
    of_lane = torch.ones(longest, longest, dtype=torch.bool).tril()
    count = len(lane_rows)
    visible = torch.cat(
        [of_prompt.expand(count, longest, columns), of_lane.expand(count, longest, longest)], dim=2
    )  # [A, T, L + T]
    prompt_of = torch.arange(len(prompts)).repeat_interleave(torch.from_numpy(lengths))
    reading = _SharedPromptPass(
        first=int(lengths.sum()),
        prompts=Grid.of(prompt_of.to(device), len(prompts)),
        lanes=Grid.of(torch.from_numpy(lane).to(device), count) if count else Grid(*[torch.zeros(0, 0).long()] * 2),
        owner=torch.from_numpy(owner).to(device),
        visible=visible[:, None].to(device),
    )
    with shared(model):
        output = model.get_decoder()(
            input_ids=torch.from_numpy(flat)[None].to(device),
            position_ids=torch.from_numpy(place)[None].to(device),
            use_cache=False,
            shared_pass=reading,
        )
    hidden = output.last_hidden_state[0]
    return hidden[torch.from_numpy(sites).to(device)], torch.from_numpy(site_of).to(device)
