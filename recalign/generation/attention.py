"""Attention of many continuations to the prompts that they share: nothing is copied, nothing is padded.

The model sees one sequence of M tokens, whatever their prompts, and its linear layers do no wasted work. Only attention
knows who may see whom; it is registered with transformers under `NAME` and reads a `Memory` passed as the forward's
`memory` argument. Differs from a 4D mask over one long sequence: cost grows with what a token may see, not with all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, PreTrainedModel

NAME = "recalign_shared"


@dataclass(frozen=True)
class Grid:
    """M tokens laid out as rows of attention problems, padded.

    Args:
        index: [R, Q] which of the M tokens; padding is 0.
        back: [M] where each token stands in the flattened grid.
    """

    index: torch.Tensor
    back: torch.Tensor

    @classmethod
    def of(cls, rows: torch.Tensor, count: int) -> Grid:
        """Lay out tokens by the row [M] that each belongs to, of `count` rows, in their order."""
        order = torch.argsort(rows, stable=True)
        sizes = torch.bincount(rows, minlength=count)
        width = int(sizes.max())
        column = torch.arange(len(rows), device=rows.device) - (sizes.cumsum(0) - sizes)[rows[order]]
        place = rows[order] * width + column
        index = torch.zeros(count * width, dtype=torch.long, device=rows.device)
        index[place] = order
        back = torch.empty_like(order)
        back[order] = place
        return cls(index.view(count, width), back)


@dataclass
class Memory:
    """Keys and values of P prompts and of the S segments that continue them, and who sees whom in the current pass.

    A segment belongs to one prompt; its tokens see the whole prompt and those earlier tokens of the segment that
    `visible` says. While `own` is None the pass encodes the prompts themselves.

    Args:
        lengths: [P] tokens of each prompt.
        prompts: the grid of the current tokens by prompt.
        own: the grid of the current tokens by segment.
        slots: [M] where each token's key goes in its segment.
        segments: [M] the segment of each token.
        visible: [S, Q, used] bool, over the grid `own`.
        used: slots in use in the fullest segment.
    """

    lengths: torch.Tensor
    prompts: Grid
    own: Grid | None = None
    slots: torch.Tensor | None = None
    segments: torch.Tensor | None = None
    visible: torch.Tensor | None = None
    used: int = 0
    prompt_keys: dict[int, torch.Tensor] = field(default_factory=dict)  # layer -> [P, H, L, D]
    prompt_values: dict[int, torch.Tensor] = field(default_factory=dict)
    own_keys: dict[int, torch.Tensor] = field(default_factory=dict)  # layer -> [S, H, capacity, D]
    own_values: dict[int, torch.Tensor] = field(default_factory=dict)

    def store(self, layer: int, key: torch.Tensor, value: torch.Tensor, count: int, capacity: int) -> None:
        """Put the current tokens' keys and values [H, M, D] into their segments' slots."""
        for buffers, new in ((self.own_keys, key), (self.own_values, value)):
            old = buffers.get(layer)
            if old is None or old.shape[2] < capacity:
                buffer = new.new_zeros(count, new.shape[0], capacity, new.shape[2])
                if old is not None:
                    buffer[:, :, : old.shape[2]] = old
                buffers[layer] = buffer
            buffers[layer][self.segments, :, self.slots] = new.transpose(0, 1)


def shared_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    memory: Memory,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Attend within a `Memory`; the signature is transformers' attention interface.

    Args:
        module: the layer; its `layer_idx` keys the memory.
        query: [1, Hq, M, D].
        key: [1, H, M, D] with Hq a multiple of H.
        value: [1, H, M, D].
        attention_mask: unused, who sees whom stands in the memory.
        scaling: factor of the scores.
        memory: keys and values so far.
        softcap: scores squashed by tanh, as Gemma 2 has it: refused.
        s_aux: attention sinks, as gpt-oss has them: refused.

    Returns:
        [1, M, Hq, D] and None.

    Raises:
        NotImplementedError: attention of another kind than softmax over scaled products.
    """
    if softcap is not None or s_aux is not None:
        raise NotImplementedError("its attention caps scores or has sinks")
    query, key, value = query[0], key[0], value[0]
    if memory.own is None:
        return _encode(module.layer_idx, query, key, value, scaling, memory)[None], None
    memory.store(module.layer_idx, key, value, memory.own.index.shape[0], _capacity(memory.used))
    layer = module.layer_idx
    columns = torch.arange(memory.prompt_keys[layer].shape[2], device=query.device)
    prompt_mask = columns < memory.lengths[:, None, None]  # [P, 1, L]
    first, first_mass = _attend(
        query, memory.prompts, memory.prompt_keys[layer], memory.prompt_values[layer], prompt_mask, scaling
    )
    own_keys, own_values = (b[layer][:, :, : memory.used] for b in (memory.own_keys, memory.own_values))
    second, second_mass = _attend(query, memory.own, own_keys, own_values, memory.visible, scaling)
    # softmax over both parts = their softmaxes, weighted by their shares of the total mass
    share = torch.sigmoid(first_mass - second_mass)[..., None]
    return (share * first + (1 - share) * second).to(query.dtype)[None], None


def _encode(
    layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, memory: Memory
) -> torch.Tensor:
    """Causal attention within each prompt; prompts are padded on the right, where causality hides the padding."""
    index = memory.prompts.index
    keys, values = (part[:, index].transpose(0, 1).contiguous() for part in (key, value))  # [P, H, L, D]
    memory.prompt_keys[layer], memory.prompt_values[layer] = keys, values
    queries = query[:, index].transpose(0, 1)  # [P, Hq, L, D]
    gqa = queries.shape[1] != keys.shape[1]
    out = F.scaled_dot_product_attention(queries, keys, values, is_causal=True, scale=scaling, enable_gqa=gqa)
    return out.transpose(1, 2).flatten(0, 1)[memory.prompts.back]  # [M, Hq, D]


def _attend(
    query: torch.Tensor, grid: Grid, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of the grid's rows to one block of keys each.

    Args:
        query: [Hq, M, D].
        grid: R rows of Q tokens.
        keys: [R, H, L, D].
        values: [R, H, L, D].
        mask: [R, Q or 1, L] bool.
        scaling: factor of the scores.

    Returns:
        Output [M, Hq, D] and log of the softmax's mass [M, Hq], float32.
    """
    (rows, width), (heads, length, size) = grid.index.shape, keys.shape[1:]
    repeat = query.shape[0] // heads
    queries = query[:, grid.index].view(heads, repeat, rows, width, size).permute(2, 0, 1, 3, 4)
    scores = torch.bmm(
        queries.reshape(rows * heads, repeat * width, size), keys.flatten(0, 1).transpose(1, 2)
    )  # [R * H, repeat * Q, L]
    scores = scores.view(rows, heads, repeat, width, length).float() * scaling
    scores = scores.masked_fill(~mask[:, None, None], torch.finfo(torch.float32).min)
    mass = scores.logsumexp(-1)
    weights = (scores - mass[..., None]).exp().to(values.dtype)
    out = torch.bmm(weights.view(rows * heads, repeat * width, length), values.flatten(0, 1))
    out = out.view(rows, heads * repeat, width, size).transpose(1, 2).reshape(rows * width, heads * repeat, size)
    mass = mass.view(rows, heads * repeat, width).transpose(1, 2).reshape(rows * width, heads * repeat)
    return out[grid.back], mass[grid.back]


def _capacity(used: int) -> int:
    """Slots to hold for `used` tokens: grows by half, so that growing costs little."""
    capacity = 32
    while capacity < used:
        capacity += capacity // 2
    return capacity


AttentionInterface.register(NAME, shared_attention)


@contextlib.contextmanager
def shared(model: PreTrainedModel) -> Iterator[None]:
    """Let the model use `shared_attention`; put back at the end what it had."""
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
