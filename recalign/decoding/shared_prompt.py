"""Completions beside the prompt that they share, for training: gradients flow, and nothing is S x S.

One sequence holds what all prompts begin with, then the rest of each prompt, and then the completions, so that the
linear layers see every token once. A completion attends to its prompt's keys and to its own. A prefix tree (see
`prefix_tree`) also shares beginnings among completions, but its tokens attend to S slots of which they may see few:
long completions are cheaper without a tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np
import torch
from transformers import PreTrainedModel

from recalign.decoding import shared_attention
from recalign.decoding.attention_rule import AttentionRule
from recalign.decoding.compatibility import obstacle_to_sharing
from recalign.decoding.prompt_cache import common_beginning
from recalign.decoding.ragged_attention import Span, attend_spans, serves, spans_beside_prompts
from recalign.decoding.shared_attention import PaddedGrid, shared

CLEARLY = 1.1
"""Shared prompts are chosen where prefix trees would cost so many times as much."""
_TAKES_SHARED_PROMPTS: WeakKeyDictionary[torch.nn.Module, bool] = WeakKeyDictionary()


@dataclass(frozen=True)
class SharedPromptPass:
    """One forward pass over the M tokens of prompts and completions; the pass that `shared_attention` asks.

    Args:
        common: tokens at the beginning of all prompts, which lie first.
        rests: [P] tokens that each prompt has beyond them, end to end.
        counts: [A] tokens of the completions, which follow.
        owners: [A] prompt of each completion.
        device: where the tokens are.
    """

    common: int
    rests: np.ndarray
    counts: np.ndarray
    owners: np.ndarray
    device: torch.device

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rule: AttentionRule
    ) -> torch.Tensor:
        """Return the attention of the queries [Hq, M, D] over keys and values [H, M, D]: [M, Hq, D]."""
        if query.device.type in shared_attention.ROW_BY_ROW and serves(rule):
            return attend_spans(query, key, value, rule, self._spans)
        sizes = [self.common, int(self.rests.sum()), int(self.counts.sum())]
        first, rest, own = zip(*(part.split(sizes, dim=1) for part in (query, key, value)), strict=True)
        queries, keys, values = (part[:, self._prompts.index].transpose(0, 1) for part in rest)  # [P, ., L, D]
        attended = []
        if self.common:
            attended.append(_by_token(rule.attend(*(part[None] for part in first))))
            keys, values = (
                torch.cat([begun.expand(len(each), -1, -1, -1), each], dim=2)
                for begun, each in zip(first[1:], (keys, values), strict=True)
            )
        attended.append(_by_token(rule.attend(queries, keys, values, self._visible_to_prompts), self._prompts))
        if len(self.owners):
            mine = [part[:, self._completions.index].transpose(0, 1) for part in own]
            keys, values = (
                torch.cat([begun[self._owner], each], dim=2)
                for begun, each in zip((keys, values), mine[1:], strict=True)
            )
            attended.append(_by_token(rule.attend(mine[0], keys, values, self._visible), self._completions))
        return torch.cat(attended)

    @cached_property
    def _spans(self) -> list[Span]:
        return spans_beside_prompts(self.common, self.rests, self.counts, self.owners)

    @cached_property
    def _prompts(self) -> PaddedGrid:
        """Grid [P, L] of the prompts' tokens, counted from the end of the common ones."""
        return _grid(self.rests, self.device)

    @cached_property
    def _completions(self) -> PaddedGrid:
        """Grid [A, T] of the completions' tokens, counted from the first."""
        return _grid(self.counts, self.device)

    @cached_property
    def _owner(self) -> torch.Tensor:
        return torch.from_numpy(self.owners).to(self.device)

    @cached_property
    def _visible_to_prompts(self) -> torch.Tensor | None:
        """[1, 1, L, common + L] bool, what a prompt's tokens see; None: causal."""
        longest = int(self.rests.max())
        seen = torch.ones(longest, self.common + longest, dtype=torch.bool, device=self.device)
        return seen.tril(self.common)[None, None] if self.common else None

    @cached_property
    def _visible(self) -> torch.Tensor:
        """[A, 1, T, common + L + T] bool, what a completion's tokens see of its prompt and of itself."""
        lengths = self.common + torch.from_numpy(self.rests)
        count, columns, longest = len(self.counts), int(lengths.max()), int(self.counts.max())
        of_prompt = torch.arange(columns) < lengths[torch.from_numpy(self.owners)][:, None, None]  # [A, 1, columns]
        of_completion = torch.ones(longest, longest, dtype=torch.bool).tril()
        parts = [of_prompt.expand(count, longest, columns), of_completion.expand(count, longest, longest)]
        return torch.cat(parts, dim=2)[:, None].to(self.device)


def _by_token(attended: torch.Tensor, grid: PaddedGrid | None = None) -> torch.Tensor:
    """What was attended in rows [R, Hq, Q, D] by token, [M, Hq, D]; None: rows without padding, in their order."""
    flat = attended.transpose(1, 2).flatten(0, 1)
    return flat if grid is None else flat[grid.back]


def _grid(sizes: np.ndarray, device: torch.device) -> PaddedGrid:
    rows = np.repeat(np.arange(len(sizes)), sizes)
    return PaddedGrid.of(torch.from_numpy(rows).to(device), len(sizes))


def sharing_is_cheaper(
    model: PreTrainedModel,
    prompts: Sequence[np.ndarray],
    needed: np.ndarray,
    groups: np.ndarray,
    trees: tuple[int, int],
) -> bool:
    """Compare the multiplications of shared prompts with those of prefix trees, which share beginnings too.

    Args:
        model: its width says what linear layers cost beside attention.
        prompts: [P] token ids.
        needed: [N] how many of each completion's tokens are encoded.
        groups: [N] which prompt each completion answers.
        trees: rows and slots of the prefix trees.

    Returns:
        False too where the model takes no shared attention.
    """
    linear = 12.0 * model.config.get_text_config().hidden_size  # a layer's matrices, by token and unit of width
    length = np.fromiter(map(len, prompts), dtype=np.float64, count=len(prompts))
    rows, slots = trees
    tree = rows * slots * (linear + 2.0 * slots)
    if model.device.type in shared_attention.ROW_BY_ROW:  # nothing is padded
        pairs = (length**2).sum() + (needed * (length[groups] + needed)).sum()
    else:
        longest = float(needed.max(initial=0))
        pairs = (length**2).sum() + (needed > 0).sum() * longest * (length.max() + longest)
    once = length.sum() - (len(prompts) - 1) * common_beginning(prompts)
    shared_prompts = (once + needed.sum()) * linear + 2.0 * pairs
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
    common = common_beginning(prompts)
    rests = lengths - common
    begins = common + rests.sum() + counts.cumsum() - counts
    completion = np.repeat(np.arange(len(used)), counts)
    step = np.arange(len(completion)) - np.repeat(counts.cumsum() - counts, counts)
    own = [prompt[common:] for prompt in prompts]
    flat = np.concatenate([prompts[0][:common], *own, tokens[used[completion], step]]).astype(np.int64)
    places = [np.arange(common), *(common + np.arange(rest) for rest in rests), lengths[owner[completion]] + step]
    place = np.concatenate(places)

    start_of = np.zeros(len(tokens), dtype=np.int64)
    start_of[used] = begins
    ends = common + rests.cumsum()
    before = np.where(positions == 0, ends[groups[rows]] - 1, start_of[rows] + positions - 1)
    sites, site_of = np.unique(before, return_inverse=True)

    device = model.device
    reading = SharedPromptPass(common, rests, counts, owner, device)
    with shared(model):
        output = model.get_decoder()(
            input_ids=torch.from_numpy(flat)[None].to(device),
            position_ids=torch.from_numpy(place)[None].to(device),
            use_cache=False,
            shared_pass=reading,
        )
    hidden = output.last_hidden_state[0]
    return hidden[torch.from_numpy(sites).to(device)], torch.from_numpy(site_of).to(device)
