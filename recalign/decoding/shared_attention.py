"""Attention of many continuations to the prompts that they share: nothing is copied, nothing is padded.

The model sees one sequence of M tokens, whatever their prompts, and its linear layers do no wasted work. Only attention
knows who may see whom; it is registered with transformers under `NAME` and asks an `AttentionPass`, which the model's
forward is handed as `shared_pass`. Differs from a 4D mask over one long sequence: cost grows with what a token may
see, not with all that there is.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from recalign.decoding.attention_pieces import Piece, attend_pieces, causal_pieces, seeing_pieces
from recalign.decoding.attention_rule import AttentionRule
from recalign.decoding.key_values import Block, KeyValues

NAME = "recalign_shared"
ROW_BY_ROW = {"cpu"}
"""Where rows are attended piece by piece; a GPU would rather compute padding than start many small products."""


class Stored(Exception):  # noqa: N818
    """The last layer's keys and values are stored: nothing that the forward pass would still compute is needed."""


@dataclass(frozen=True)
class PaddedGrid:
    """M tokens laid out as rows of attention problems, padded.

    Args:
        index: [R, Q] which of the M tokens; padding is 0.
        back: [M] where each token stands in the flattened grid.
    """

    index: torch.Tensor
    back: torch.Tensor

    @classmethod
    def of(cls, rows: torch.Tensor, count: int) -> PaddedGrid:
        """Lay out tokens by the row [M] that each belongs to, of `count` rows, in their order."""
        order = torch.argsort(rows, stable=True)
        sizes = group_sizes(rows, count)
        width = int(sizes.max())
        column = torch.arange(len(rows), device=rows.device) - (sizes.cumsum(0) - sizes)[rows[order]]
        place = rows[order] * width + column
        index = torch.zeros(count * width, dtype=torch.long, device=rows.device)
        index[place] = order
        back = torch.empty_like(order)
        back[order] = place
        return cls(index.view(count, width), back)

    def by_token(self, tensor: torch.Tensor, heads: int) -> torch.Tensor:
        """Turn what belongs to heads and tokens, laid out as [R, heads, Q, n], into [M, heads, n]."""
        rows, width = self.index.shape
        by_row = tensor.view(rows, heads, width, -1).transpose(1, 2)
        return by_row.reshape(rows * width, heads, -1)[self.back]

    def scatter(self, mask: torch.Tensor) -> torch.Tensor:
        """Lay out what tokens see (bool [M, L]) as an additive mask [R, Q, L]; padding sees all."""
        bias = torch.zeros(self.index.numel(), mask.shape[1], device=mask.device)
        bias[self.back] = _bias(mask)
        return bias.view(*self.index.shape, -1)


def group_sizes(groups: torch.Tensor, count: int) -> torch.Tensor:
    """[count] how many of [M] belong to each group; `torch.bincount` would wait for a GPU."""
    return torch.zeros(count, dtype=torch.long, device=groups.device).index_add_(0, groups, torch.ones_like(groups))


class AttentionPass(Protocol):
    """Who sees whom in one forward pass over M tokens."""

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rule: AttentionRule
    ) -> torch.Tensor:
        """Store keys and values [H, M, D]; return the attention of the queries [Hq, M, D]: [M, Hq, D]."""


@dataclass(frozen=True)
class PromptPass:
    """Encodes some prompts but for their last tokens: keys and values are all that is wanted.

    Args:
        prompts: where keys and values go, the first `begun` columns of which are there already.
        first: the first of the prompts, which stand in rows side by side.
        grid: the tokens by prompt, counted from the first; those of a prompt follow each other.
        columns: [M] place of each token in its prompt.
        begun: tokens that stand before the first of these in every prompt.
        last_layer: after which nothing more is needed.
    """

    prompts: KeyValues
    first: int
    grid: PaddedGrid
    columns: torch.Tensor
    begun: int
    last_layer: int

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rule: AttentionRule
    ) -> torch.Tensor:
        """Attend causally: piece by piece on a CPU, elsewhere in a square; causality hides its padding on the right."""
        rows, width = self.grid.index.shape
        self.prompts.put(layer, key, value, self.first + self.grid.back // width, self.columns)
        if layer == self.last_layer:
            raise Stored
        if query.device.type in ROW_BY_ROW:
            return attend_pieces(self._pieces, query, self.prompts.block(layer), rule)
        queries = query[:, self.grid.index].transpose(0, 1)  # [P, Hq, Q, D]
        queries = F.pad(queries, (0, 0, self.begun, 0))  # a causal square costs less than a mask: half of it is skipped
        keys, values = (part[self.first : self.first + rows] for part in self.prompts.block(layer, self.begun + width))
        out = rule.attend(queries, keys, values)
        return out[:, :, self.begun :].transpose(1, 2).flatten(0, 1)[self.grid.back]

    @cached_property
    def _pieces(self) -> list[Piece]:
        rows, width = self.grid.index.shape
        return causal_pieces(group_sizes(self.grid.back // width, rows).tolist(), self.first, self.begun)


@dataclass(frozen=True)
class SiblingPass:
    """Encodes tokens of rows: each sees the beginning of its row, and some of what follows it.

    Args:
        held: keys and values of the rows.
        rows: [M] row of each token, ascending.
        columns: [M] where each token goes in its row.
        lengths: [R] how much of a row all its tokens see.
        seen: [M, U] bool, which of the next U columns each token sees.
    """

    held: KeyValues
    rows: torch.Tensor
    columns: torch.Tensor
    lengths: torch.Tensor
    seen: torch.Tensor

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rule: AttentionRule
    ) -> torch.Tensor:
        """Attend piece by piece on a CPU, which then computes no padding, elsewhere to all rows at once."""
        self.held.put(layer, key, value, self.rows, self.columns)
        if query.device.type in ROW_BY_ROW:
            return attend_pieces(self._pieces, query, self.held.block(layer), rule)
        block = self.held.block(layer, self._bias.shape[2])
        scores = _scores(query, self._grid, block, self._bias, rule)
        return _mixed(rule.weights(scores, key.shape[0]), self._grid, block)

    @cached_property
    def _pieces(self) -> list[Piece]:
        return seeing_pieces(self.rows, self.lengths, self.seen, _bias(self.seen))

    @cached_property
    def _grid(self) -> PaddedGrid:
        return PaddedGrid.of(self.rows, len(self.lengths))

    @cached_property
    def _bias(self) -> torch.Tensor:
        """[R, Q, L + U] additive mask over the grid, L the largest of the lengths."""
        after = torch.arange(int(self.lengths.max()) + self.seen.shape[1], device=self.rows.device)
        after = (after - self.lengths[:, None])[self.rows]  # [M, L + U] columns from where a row's beginning ends
        padded = F.pad(self.seen, (0, 1))
        own = padded.gather(1, torch.where(after >= 0, after, self.seen.shape[1]).clamp_max(self.seen.shape[1]))
        return self._grid.scatter(own | (after < 0))


@dataclass(frozen=True)
class ContinuationPass:
    """Encodes tokens that continue prompts: each sees its whole prompt, and the earlier tokens of its segment.

    Args:
        prompts: keys and values of the prompts.
        own: those of the segments.
        prompt_grid: the tokens by prompt.
        own_grid: the tokens by segment.
        segments: [M] segment of each token.
        slots: [M] where each token goes in its segment.
        prompt_bias: [P, 1, L] additive mask.
        own_bias: [S, Q, used] additive mask over `own_grid`.
    """

    prompts: KeyValues
    own: KeyValues
    prompt_grid: PaddedGrid
    own_grid: PaddedGrid
    segments: torch.Tensor
    slots: torch.Tensor
    prompt_bias: torch.Tensor
    own_bias: torch.Tensor

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rule: AttentionRule
    ) -> torch.Tensor:
        """Attend to the prompt and to the segment, and merge the two."""
        self.own.put(layer, key, value, self.segments, self.slots)
        prompts, own = self.prompts.block(layer), self.own.block(layer, self.own_bias.shape[2])
        first, first_mass = _attend(query, self.prompt_grid, prompts, self.prompt_bias, rule)
        second, second_mass = _attend(query, self.own_grid, own, self.own_bias, rule)
        # softmax over both parts = their softmaxes, weighted by their shares of the total mass
        mixed = first.lerp(second, torch.sigmoid(second_mass - first_mass).to(first.dtype))
        return rule.left_by_sinks(mixed, torch.logaddexp(first_mass, second_mass))


def _attend(
    query: torch.Tensor, grid: PaddedGrid, block: Block, bias: torch.Tensor, rule: AttentionRule
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention [M, Hq, D] to a block without sinks, and the log of its mass [M, Hq, 1]; arguments as in `_scores`."""
    scores = _scores(query, grid, block, bias, rule)
    weights = scores.softmax(dim=2)
    # the largest weight is exp(0) / mass; an exp of one's own is many times slower on a CPU where it underflows
    mass = scores.amax(dim=2, keepdim=True) - weights.amax(dim=2, keepdim=True).log()
    return _mixed(weights, grid, block), grid.by_token(mass, query.shape[0])


def _scores(
    query: torch.Tensor, grid: PaddedGrid, block: Block, bias: torch.Tensor, rule: AttentionRule
) -> torch.Tensor:
    """Scores of the grid's tokens for all that their row sees; no gradients.

    Args:
        query: [Hq, M, D], Hq a multiple of H.
        grid: R rows of Q tokens.
        block: L tokens.
        bias: [R, Q or 1, L] float32, added to the scores.
        rule: scales and caps the scores.

    Returns:
        [R * H, Hq / H * Q, L] float32.
    """
    (rows, width), (keys, _), size = grid.index.shape, block, query.shape[2]
    heads = keys.shape[1]
    repeat = query.shape[0] // heads
    queries = query[:, grid.index].view(heads, repeat, rows, width, size).permute(2, 0, 1, 3, 4)
    queries = queries.reshape(rows * heads, repeat * width, size) * rule.scale
    scores = rule.capped(torch.bmm(queries, keys.flatten(0, 1).transpose(1, 2)).float())
    scores.view(rows, heads, repeat, width, -1).add_(bias[:, None, None])
    return scores


def _mixed(weights: torch.Tensor, grid: PaddedGrid, block: Block) -> torch.Tensor:
    """The block's values [M, Hq, D] by weights [R * H, Hq / H * Q, L]."""
    values = block[1].flatten(0, 1)
    mixed = torch.bmm(weights.to(values.dtype), values)
    rows, width = grid.index.shape
    return grid.by_token(mixed, mixed.shape[0] * mixed.shape[1] // (rows * width))


def _bias(seen: torch.Tensor) -> torch.Tensor:
    """What to add to the scores of what is seen (bool, any shape) and of what is not."""
    return torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, torch.finfo(torch.float32).min)


def shared_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    shared_pass: AttentionPass | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Attend as a pass says; the signature is transformers' attention interface.

    Args:
        module: the layer; its `layer_idx` tells its keys and values from those of others.
        query: [1, Hq, M, D].
        key: [1, H, M, D].
        value: [1, H, M, D].
        attention_mask: unused, the pass knows who sees whom.
        scaling: factor of the scores.
        shared_pass: who sees whom; None: what the decoder layer around was handed, which did not hand it on.
        softcap: scores are squashed by tanh to stay below it (Gemma 2).
        s_aux: [Hq] attention sinks (gpt-oss).

    Returns:
        [1, M, Hq, D] and None.

    Raises:
        Stored: the pass has what it wants.
    """
    reading = _HANDED.get() if shared_pass is None else shared_pass
    rule = AttentionRule(scaling, softcap, s_aux)
    return reading.attend(int(module.layer_idx), query[0], key[0], value[0], rule)[None], None


_HANDED: ContextVar[AttentionPass | None] = ContextVar("shared_pass", default=None)
"""`shared_pass` of the decoder layer that is run: StableLM's hand nothing on to their attention."""
_NOTING: WeakSet[PreTrainedModel] = WeakSet()
"""Models whose layers note it."""


def _note_pass(model: PreTrainedModel) -> None:
    """Let a model's layers note which pass they are handed; a layer that is computed again finds it in its context."""

    def note(_: torch.nn.Module, __: object, arguments: dict[str, Any]) -> None:
        _HANDED.set(arguments.get("shared_pass"))

    def forget(*_: object) -> None:
        _HANDED.set(None)

    if model not in _NOTING:
        _NOTING.add(model)
        for layer in model.modules():
            if isinstance(layer, GradientCheckpointingLayer):
                layer.register_forward_pre_hook(note, with_kwargs=True)
                layer.register_forward_hook(forget, always_call=True)


AttentionInterface.register(NAME, shared_attention)
ALONE = threading.RLock()
"""Held by the one thread that a model may infer in: for that time it is changed."""
_OWN: WeakKeyDictionary[PreTrainedModel, str] = WeakKeyDictionary()
"""What models within `shared` had before."""


@contextlib.contextmanager
def shared(model: PreTrainedModel) -> Iterator[None]:
    """Let the model use `shared_attention`, in this thread alone; put back at the end what it had."""
    with ALONE:
        before = model.config._attn_implementation
        if before != NAME:
            _OWN[model] = before
        _note_pass(model)
        model.set_attn_implementation(NAME)
        try:
            yield
        finally:
            model.set_attn_implementation(before)


@contextlib.contextmanager
def own(model: PreTrainedModel) -> Iterator[None]:
    """Let the model attend as it does outside of `shared`."""
    if model.config._attn_implementation != NAME:
        yield
        return
    model.set_attn_implementation(_OWN[model])
    try:
        yield
    finally:
        model.set_attn_implementation(NAME)
