"""The KV cache of prompts, each encoded once, and of the completions or beams that continue them."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from recalign.decoding.key_values import KeyValues
from recalign.decoding.shared_attention import (
    AttentionPass,
    ContinuationPass,
    PaddedGrid,
    PromptPass,
    SiblingPass,
    Stored,
    group_sizes,
)
from recalign.models.prepacked import replaced_forward

WORTH_A_PASS = 16
"""Tokens at the beginning of all prompts that are encoded in a pass of their own."""
TREE, CHAIN = 96, 32
"""Slots that segments get at first."""
TOKENS_A_PASS = {True: 1024, False: 32768}
"""Maximum of prompt tokens per forward pass, on a CPU (where more would not fit its cache) and elsewhere."""


@dataclass
class Cost:
    """What has been spent so far.

    Args:
        prompts: prompts encoded.
        prompt_tokens: their tokens.
        completion_tokens: tokens of all completions returned, forced ones included.
        forward_passes: calls of the model.
        nodes_opened: trie nodes that exact search has opened.
        seconds: wall-clock time.
        format_failures: answers whose decision had to be forced, because their text did not come to one.
    """

    prompts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    forward_passes: int = 0
    nodes_opened: int = 0
    seconds: float = 0.0
    format_failures: int = 0


class PromptCache(ABC):
    """Encoded prompts, and the completions that share them.

    A *segment* holds tokens that follow one prompt, each in a *slot*. A completion goes on from a slot (or from the
    prompt, slot -1) and attends to that slot's ancestors only, so a segment may be a chain (one sampled completion) or
    a tree (the beams of a prompt).
    """

    segments: int  # how many it holds

    @abstractmethod
    def begin(self, prompts: Sequence[np.ndarray], segments: int = 1, *, branching: bool = False) -> torch.Tensor:
        """Encode P prompts.

        Args:
            prompts: [P] token ids.
            segments: empty segments that each of them gets.
            branching: segments are trees; otherwise a completion always goes on from its segment's last slot.

        Returns:
            Logits after each prompt: [P, V].
        """

    @abstractmethod
    def extend(
        self,
        segments: torch.Tensor,
        parents: torch.Tensor,
        tokens: torch.Tensor,
        counts: torch.Tensor,
        *,
        every: bool = False,
        columns: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append tokens to A completions.

        Args:
            segments: [A] the segment of each completion, ascending where segments branch.
            parents: [A] the slot that it goes on from, or -1 for the prompt.
            tokens: [A, R] int64, padded on the right.
            counts: [A] how many tokens each completion has, at least 1.
            every: return the logits after every token, completion by completion.
            columns: [C] tokens whose logits are wanted; None: all V.

        Returns:
            Logits [A, C] after each completion's last token (or [sum of counts, C]), and the slot [A] of that token.
        """

    @abstractmethod
    def prune(self, slots: torch.Tensor) -> None:
        """Forget all tokens of branching segments but those in slots [S, b] (-1: none) and their ancestors.

        Their slots are given to later tokens.
        """

    @abstractmethod
    def retain(self, segments: torch.Tensor) -> None:
        """Forget all segments but these (ascending), which are numbered anew from 0, and prompts without any."""


class SharedPromptCache(PromptCache):
    """Prompts encoded once, through `shared_attention`; use it within `attention.shared(model)`."""

    def __init__(self, model: PreTrainedModel, cost: Cost) -> None:
        self.model, self.cost = model, cost
        self.device = model.device

    def begin(self, prompts: Sequence[np.ndarray], segments: int = 1, *, branching: bool = False) -> torch.Tensor:
        """Encode the prompts: what they all begin with once, the rest end to end, then their last tokens.

        Only the last tokens' logits are wanted. So the passes before end at the last layer's keys and values.
        """
        count = len(prompts) * segments
        self.segments, self.branching = count, branching
        self.prompt_of = torch.arange(len(prompts), device=self.device).repeat_interleave(segments)
        self.filled = torch.zeros(count, dtype=torch.long, device=self.device)  # [S] slots of chains in use
        self.taken = torch.zeros(count, 0, dtype=torch.bool, device=self.device)  # [S, slots] those of trees
        self.depth = torch.zeros(count, 0, dtype=torch.long, device=self.device)  # [S, slots]
        self.ancestors = torch.zeros(count, 0, 0, dtype=torch.bool, device=self.device)  # [S, slots, slots]
        self.own = KeyValues(count, 0)
        self.lengths = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        self.longest = int(self.lengths.max())
        self.prompts = KeyValues(len(prompts), self.longest + TREE * branching)
        self.cost.prompts += len(prompts)
        self.cost.prompt_tokens += sum(map(len, prompts))

        common = common_beginning(prompts)
        if common:
            prefix = KeyValues(1, common)
            self._store(prefix, 0, [prompts[0][:common]], 0)
            self.prompts.start_with(prefix)
        rest = [prompt[common:-1] for prompt in prompts]
        for start, stop in _in_passes(list(map(len, rest)), TOKENS_A_PASS[self.device.type == "cpu"]):
            self._store(self.prompts, start, rest[start:stop], common)
        every = torch.arange(len(prompts), device=self.device)
        last = torch.tensor([int(prompt[-1]) for prompt in prompts], device=self.device)
        self.bias = self._prompt_bias()
        nothing = torch.zeros(len(prompts), 0, dtype=torch.bool, device=self.device)
        attention = SiblingPass(self.prompts, every, self.lengths - 1, self.lengths, nothing)
        return self._forward(attention, last, self.lengths - 1, every)

    def extend(
        self,
        segments: torch.Tensor,
        parents: torch.Tensor,
        tokens: torch.Tensor,
        counts: torch.Tensor,
        *,
        every: bool = False,
        columns: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the tokens of all completions as one sequence."""
        owner = torch.repeat_interleave(torch.arange(len(counts), device=self.device), counts)  # [M]
        step = torch.arange(len(owner), device=self.device) - (counts.cumsum(0) - counts)[owner]
        segment = segments[owner]
        grid = PaddedGrid.of(segment, self.segments)
        slots = self._slots(segment, grid)
        depth = self._depths(segments, parents)[owner] + step
        visible = self._visible(segments, parents, owner, step, slots, tokens.shape[1])
        prompt = self.prompt_of[segment]
        attention: AttentionPass
        if self.branching:
            self.depth[segment, slots], self.ancestors[segment, slots] = depth, visible
            visible = visible[:, : _last_used(self.taken)]
            self.prompts.grow(self.longest + room(visible.shape[1], TREE))
            attention = SiblingPass(self.prompts, segment, self.lengths[segment] + slots, self.lengths, visible)
        else:
            self.own.grow(room(visible.shape[1], CHAIN))
            by_prompt, bias = PaddedGrid.of(prompt, len(self.lengths)), grid.scatter(visible)
            attention = ContinuationPass(self.prompts, self.own, by_prompt, grid, segment, slots, self.bias, bias)
        ends = counts.cumsum(0) - 1
        wanted = torch.arange(len(owner), device=self.device) if every else ends
        return self._forward(attention, tokens[owner, step], self.lengths[prompt] + depth, wanted, columns), slots[ends]

    def prune(self, slots: torch.Tensor) -> None:
        """Free slots; nothing is moved."""
        if self.taken.shape[1]:
            rows = torch.arange(self.segments, device=self.device)[:, None]
            retained = self.ancestors[rows, slots.clamp_min(0)] & (slots >= 0)[..., None]  # [S, b, slots]
            self.taken = retained.any(dim=1)

    def retain(self, segments: torch.Tensor) -> None:
        """Copy what is retained into smaller buffers."""
        self.segments = len(segments)
        prompts, self.prompt_of = torch.unique(self.prompt_of[segments], return_inverse=True)
        used = 0
        if self.branching:
            self.taken = self.taken[segments]
            used = _last_used(self.taken)
            self.taken, self.depth = self.taken[:, :used], self.depth[segments, :used]
            self.ancestors = self.ancestors[segments, :used, :used]
        else:
            self.filled = self.filled[segments]
            self.own.retain(segments, int(self.filled.max()))
        if len(prompts) < len(self.lengths):
            self.lengths = self.lengths[prompts]
            self.longest = int(self.lengths.max())
            self.prompts.retain(prompts, self.longest + used)
            self.bias = self._prompt_bias()

    def _prompt_bias(self) -> torch.Tensor:
        hidden = torch.arange(self.longest, device=self.device) >= self.lengths[:, None, None]
        return torch.zeros(hidden.shape, device=self.device).masked_fill_(hidden, torch.finfo(torch.float32).min)

    def _store(self, where: KeyValues, first: int, parts: Sequence[np.ndarray], begun: int) -> None:
        """Store the keys and values of parts of prompts (rows from `first` on) that begin at the place `begun`."""
        tokens = torch.from_numpy(np.concatenate(parts)).long().to(self.device)
        if not len(tokens):
            return
        sizes = torch.tensor([len(part) for part in parts], device=self.device)
        row = torch.arange(len(parts), device=self.device).repeat_interleave(sizes)
        position = begun + torch.arange(len(tokens), device=self.device) - (sizes.cumsum(0) - sizes)[row]
        last_layer = self.model.config.get_text_config().num_hidden_layers - 1
        attention = PromptPass(where, first, PaddedGrid.of(row, len(parts)), position, begun, last_layer)
        with contextlib.suppress(Stored):
            self._forward(attention, tokens, position, row[:1])

    def _forward(
        self,
        attention: AttentionPass,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        wanted: torch.Tensor,
        columns: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Run the model over M tokens; logits [W, C] at the wanted ones."""
        self.cost.forward_passes += 1
        with _only(self.model, columns) as narrow:
            out = self.model(
                input_ids=tokens[None],
                position_ids=positions[None],
                use_cache=False,
                logits_to_keep=wanted,
                shared_pass=attention,
            )
        return out.logits[0] if narrow or columns is None else out.logits[0][:, columns]

    def _depths(self, segments: torch.Tensor, parents: torch.Tensor) -> torch.Tensor:
        """[A] how many continuation tokens precede a completion's next one."""
        if not self.branching or not self.depth.shape[1]:
            return parents + 1
        return torch.where(parents >= 0, self.depth[segments, parents.clamp_min(0)] + 1, 0)

    def _slots(self, segment: torch.Tensor, grid: PaddedGrid) -> torch.Tensor:
        """[M] a free slot for each token of some segments, in ascending order."""
        counts = group_sizes(segment, self.segments)
        rank = grid.back - segment * grid.index.shape[1]
        if not self.branching:
            slots = self.filled[segment] + rank
            self.filled = self.filled + counts
            return slots
        missing = int((counts + self.taken.sum(dim=1)).max()) - self.taken.shape[1]
        if missing > 0:
            self.taken, self.depth = F.pad(self.taken, (0, missing)), F.pad(self.depth, (0, missing))
            self.ancestors = F.pad(self.ancestors, (0, missing, 0, missing))
        slots = torch.argsort(self.taken.byte(), dim=1, stable=True)[segment, rank]
        self.taken[segment, slots] = True
        return slots

    def _visible(
        self,
        segments: torch.Tensor,
        parents: torch.Tensor,
        owner: torch.Tensor,
        step: torch.Tensor,
        slots: torch.Tensor,
        width: int,
    ) -> torch.Tensor:
        """[M, slots] which slots of its segment each token sees; no completion has more than `width` tokens."""
        if not self.branching:
            return torch.arange(int(self.filled.max()), device=self.device) <= slots[:, None]
        seen = self.ancestors[segments, parents.clamp_min(0)] & (parents >= 0)[:, None]  # [A, slots]
        seen = seen[owner]
        mine = torch.zeros(len(segments), width, dtype=torch.long, device=self.device)  # [A, R]
        mine[owner, step] = slots
        earlier = torch.arange(mine.shape[1], device=self.device) <= step[:, None]
        return seen.scatter_(1, torch.where(earlier, mine[owner], mine[owner, :1]), True)


def _last_used(taken: torch.Tensor) -> int:
    """How many columns of [S, slots] there are up to the last one that any row uses."""
    column = torch.arange(1, taken.shape[1] + 1, device=taken.device)
    return int((taken.any(dim=0) * column).max()) if taken.shape[1] else 0


def _in_passes(sizes: Sequence[int], maximum: int) -> Iterator[tuple[int, int]]:
    """Cut prompts of some sizes into runs [start, stop) of up to `maximum` padded tokens, or one prompt."""
    start, widest = 0, 0
    for index, size in enumerate(sizes):
        widest = max(widest, size)
        if index > start and widest * (index + 1 - start) > maximum:
            yield start, index
            start, widest = index, size
    yield start, len(sizes)


def common_beginning(prompts: Sequence[np.ndarray]) -> int:
    """How many tokens all prompts begin with, where that is worth a pass of its own; never a prompt's last token."""
    shortest = min(map(len, prompts)) - 1
    if len(prompts) < 2:
        return 0
    heads = np.stack([prompt[:shortest] for prompt in prompts])
    common = int((heads == heads[0]).all(axis=0).cumprod().sum())
    return common if common >= WORTH_A_PASS else 0


def room(used: int, least: int) -> int:
    """Slots to hold for `used` tokens: `least`, and a quarter more again and again, so that growing costs little."""
    size = least
    while size < used:
        size += max(least, size // 4)
    return size


@contextlib.contextmanager
def _only(model: PreTrainedModel, columns: torch.Tensor | None) -> Iterator[bool]:
    """Let the head compute some columns only, where it is a linear layer; yield whether it does."""
    head = model.get_output_embeddings()
    if columns is None or type(head) is not torch.nn.Linear:
        yield False
        return
    weight, bias = head.weight[columns], None if head.bias is None else head.bias[columns]
    with replaced_forward(head, lambda hidden: F.linear(hidden, weight, bias)):
        yield True
