"""Completions beside the prompt that they share, for training: gradients flow, and nothing is S x S.

One sequence holds the prompts, each once, and then the completions, so that the linear layers see every token once. A
completion attends to its prompt's keys and to its own. A prefix tree (see `prefix_tree`) also shares beginnings among
completions, but its tokens attend to S slots of which they may see few: long completions are cheaper without a tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from transformers import PreTrainedModel

from recalign.decoding.attention_rule import AttentionRule
from recalign.decoding.compatibility import obstacle_to_sharing
from recalign.decoding.shared_attention import PaddedGrid, shared

CLEARLY = 1.1
"""Shared prompts are chosen where prefix trees would cost so many times as much."""
_TAKES_SHARED_PROMPTS: WeakKeyDictionary[torch.nn.Module, bool] = WeakKeyDictionary()


@dataclass(frozen=True)
class _SharedPromptPass:
    """One forward pass over the M tokens of prompts and completions; the pass that `shared_attention` asks.

    Args:
        first: how many of the M tokens are prompts'.
        prompts: grid [P, L] of the prompts' tokens.
        completions: grid [A, T] of the completions' tokens, counted from `first`.
        owner: [A] prompt of each completion.
        visible: [A, 1, T, L + T] bool, what a completion's tokens see of its prompt and of itself.
    """

    first: int
    prompts: PaddedGrid
    completions: PaddedGrid
    owner: torch.Tensor
    visible: torch.Tensor

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rule: AttentionRule
    ) -> torch.Tensor:
        """Return the attention of the queries [Hq, M, D] over keys and values [H, M, D]: [M, Hq, D]."""
        begin = [part[:, : self.first][:, self.prompts.index].transpose(0, 1) for part in (query, key, value)]
        attended = rule.attend(*begin)  # [P, Hq, L, D]
        attended = attended.transpose(1, 2).flatten(0, 1)[self.prompts.back]
        if not len(self.owner):
            return attended
        own = [part[:, self.first :][:, self.completions.index].transpose(0, 1) for part in (query, key, value)]
        keys, values = (torch.cat([b[self.owner], o], dim=2) for b, o in zip(begin[1:], own[1:], strict=True))
        out = rule.attend(own[0], keys, values, self.visible)  # [A, Hq, T, D]
        return torch.cat([attended, out.transpose(1, 2).flatten(0, 1)[self.completions.back]])


def sharing_is_cheaper(
    model: PreTrainedModel,
    prompts: Sequence[np.ndarray],
    needed: np.ndarray,
    trees: tuple[int, int],
) -> bool:
    """Compare the multiplications of shared prompts with those of prefix trees, which share beginnings too.

    Args:
        model: its width says what linear layers cost beside attention.
        prompts: [P] token ids.
        needed: [N] how many of each completion's tokens are encoded.
        trees: rows and slots of the prefix trees.

    Returns:
        False too where the model takes no shared attention.
    """
    linear = 12.0 * model.config.get_text_config().hidden_size  # a layer's matrices, by token and unit of width
    length = np.fromiter(map(len, prompts), dtype=np.float64, count=len(prompts))
    rows, slots = trees
    tree = rows * slots * (linear + 2.0 * slots)
    longest = float(needed.max(initial=0))
    pairs = (length**2).sum() + (needed > 0).sum() * longest * (length.max() + longest)
    shared_prompts = (length.sum() + needed.sum()) * linear + 2.0 * pairs
    return bool(tree > CLEARLY * shared_prompts) and takes_shared_prompts(model)


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
    used = np.flatnonzero(needed)
    counts, owner = needed[used], groups[used]
    lengths = np.fromiter(map(len, prompts), dtype=np.int64, count=len(prompts))
    begins = lengths.sum() + counts.cumsum() - counts
    completion = np.repeat(np.arange(len(used)), counts)
    step = np.arange(len(completion)) - np.repeat(counts.cumsum() - counts, counts)
    flat = np.concatenate([*prompts, tokens[used[completion], step]]).astype(np.int64)
    place = np.concatenate([*map(np.arange, lengths), lengths[owner[completion]] + step])

    start_of = np.zeros(len(tokens), dtype=np.int64)
    start_of[used] = begins
    before = np.where(positions == 0, lengths.cumsum()[groups[rows]] - 1, start_of[rows] + positions - 1)
    sites, site_of = np.unique(before, return_inverse=True)

    device = model.device
    columns, longest = int(lengths.max()), int(counts.max(initial=0))
    of_prompt = torch.arange(columns) < torch.from_numpy(lengths[owner])[:, None, None]  # [A, 1, L]
    of_completion = torch.ones(longest, longest, dtype=torch.bool).tril()
    count = len(used)
    visible = torch.cat(
        [of_prompt.expand(count, longest, columns), of_completion.expand(count, longest, longest)], dim=2
    )  # [A, T, L + T]
    prompt_of = torch.arange(len(prompts)).repeat_interleave(torch.from_numpy(lengths))
    reading = _SharedPromptPass(
        first=int(lengths.sum()),
        prompts=PaddedGrid.of(prompt_of.to(device), len(prompts)),
        completions=PaddedGrid.of(torch.from_numpy(completion).to(device), count)
        if count
        else PaddedGrid(*[torch.zeros(0, 0).long()] * 2),
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
