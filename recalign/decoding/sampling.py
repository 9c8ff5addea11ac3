"""Sampling and greedy decoding of lists: all rows of a batch together, decided tokens without a step of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from recalign.api import INVALID, Completions
from recalign.decoding.constraint import ListConstraint, State, ValidNext
from recalign.decoding.prompt_cache import PromptCache
from recalign.decoding.random_numbers import random_keys, uniforms
from recalign.decoding.scoring import draw, masked_log_softmax, penalise

if TYPE_CHECKING:
    from recalign.data.dataset import Row
    from recalign.decoding.engine import PolicyEngine
    from recalign.text.item_tokens import TitleTokens


def join(parts: Sequence[Completions], order: Sequence[int], group_size: int, end: int) -> Completions:
    """Put the batches' completions back into the order of the prompts.

    Args:
        parts: completions of each batch.
        order: [P] which prompt each of them answers, batch after batch.
        group_size: G.
        end: the padding.
    """
    width = max(part.tokens.shape[1] for part in parts)

    def joined(name: str, fill: int) -> torch.Tensor:
        pads = [(getattr(part, name), width - part.tokens.shape[1]) for part in parts]
        return torch.cat([torch.nn.functional.pad(tensor, (0, pad), value=fill) for tensor, pad in pads])

    place = torch.argsort(torch.tensor(order))
    rows = (place[:, None] * group_size + torch.arange(group_size)).flatten()
    lengths, items = (torch.cat([getattr(part, name) for part in parts]) for name in ("lengths", "items"))
    columns = (joined("tokens", end), lengths, items, joined("logps", 0), joined("mask", 0))
    return Completions(*(column[rows] for column in columns))


class Record:
    """What the rows of a batch have written so far, in buffers that grow; writing waits for no GPU."""

    def __init__(self, count: int, end: int, device: torch.device) -> None:
        self.end = end
        self.tokens = torch.full((count, 64), end, dtype=torch.long, device=device)
        self.logps = torch.zeros(count, 64, device=device)
        self.lengths = torch.zeros(count, dtype=torch.long, device=device)
        self.bound = 0  # no row is longer

    def write(self, rows: torch.Tensor, tokens: torch.Tensor, counts: torch.Tensor) -> None:
        """Append `counts` [A] of the tokens [A, R] to some rows [A]."""
        width = tokens.shape[1]
        if self.bound + width > self.tokens.shape[1]:
            self.bound = int(self.lengths.max())
            grow = self.bound + width - self.tokens.shape[1]
            if grow > 0:
                grow = max(grow, self.tokens.shape[1])
                self.tokens = torch.nn.functional.pad(self.tokens, (0, grow), value=self.end)
                self.logps = torch.nn.functional.pad(self.logps, (0, grow))
        self.bound += width
        column = torch.arange(width, device=rows.device)
        place = (rows[:, None], self.lengths[rows, None] + column)
        self.tokens[place] = torch.where(column < counts[:, None], tokens, self.tokens[place])
        self.lengths[rows] += counts

    def completions(self, items: torch.Tensor) -> Completions:
        """Return what was written, with the items [N, K] that it names."""
        width = int(self.lengths.max())
        mask = torch.arange(width, device=self.lengths.device) < self.lengths[:, None]
        columns = (self.tokens[:, :width], self.lengths, items, self.logps[:, :width], mask)
        return Completions(*(column.cpu() for column in columns))


@dataclass(frozen=True)
class Sampler:
    """One way of choosing tokens, over batches of rows.

    Args:
        engine: model, titles and costs.
        list_length: K.
        temperature: divides the logits; None takes the most probable token (scored at temperature 1).
        repetition_penalty: 1.0 for none.
        seed: of the counter-based random numbers.
        epoch: another epoch draws other numbers.
        constrained: follow the trie.
    """

    engine: PolicyEngine
    list_length: int
    temperature: float | None
    repetition_penalty: float
    seed: int
    epoch: int
    constrained: bool

    def run(self, rows: Sequence[Row], prompts: Sequence[np.ndarray], group_size: int) -> Completions:
        """Complete each prompt G times."""
        batch = CompletionBatch.of(self, rows, prompts, group_size)
        if self.constrained:
            items = _write_lists(batch, self.engine.constraint(self.list_length), self.engine.excluded_by(rows))
        else:
            items = _write_text(batch, self.engine.policy.titles, self.list_length)
        return batch.record.completions(items)


class CompletionBatch:
    """The completions of a batch: their tokens so far, how many of them are cached, and their random keys.

    Args:
        cache: holds the prompts, with a segment per completion.
        logits: [N, V] after the prompts, or [N, 0] where every completion goes on with given tokens first.
        keys: uint64 [N] random keys.
        end: the end token.
        temperature: divides the logits; None takes the most probable token.
    """

    penalty = 1.0
    seen: torch.Tensor | None = None  # [N, V] bool

    def __init__(
        self, cache: PromptCache, logits: torch.Tensor, keys: np.ndarray, end: int, temperature: float | None
    ) -> None:
        self.cache, self.logits, self.keys, self.temperature = cache, logits, keys, temperature
        self.live = torch.arange(len(keys), device=logits.device)  # [A] rows still being written
        self.cached = torch.zeros_like(self.live)  # [A] tokens with keys and values in the cache
        self.slots = torch.full_like(self.live, -1)
        self.segments = self.live
        self.record = Record(len(keys), end, self.live.device)

    @classmethod
    def of(
        cls, sampler: Sampler, rows: Sequence[Row], prompts: Sequence[np.ndarray], group_size: int
    ) -> CompletionBatch:
        """Begin the lists of P rows, G each."""
        engine = sampler.engine
        keys = random_keys(sampler.seed, sampler.epoch, [row.index for row in rows], group_size)
        cache, logits = engine.begin(rows, prompts, sampler.list_length, group_size)
        logits = logits.repeat_interleave(group_size, dim=0)
        batch = cls(cache, logits, keys, engine.policy.titles.end, sampler.temperature)
        if sampler.repetition_penalty != 1.0:
            batch.penalty, batch.seen = sampler.repetition_penalty, torch.zeros_like(logits, dtype=torch.bool)
            for group, prompt in zip(batch.seen.split(group_size), prompts, strict=True):
                group[:, torch.from_numpy(np.asarray(prompt))] = True
        return batch

    def write(self, tokens: torch.Tensor, counts: torch.Tensor) -> None:
        """Record `counts` [A] of the tokens [A, R] of the live rows."""
        self.record.write(self.live, tokens, counts)
        if self.seen is not None:
            mine = torch.arange(tokens.shape[1], device=tokens.device) < counts[:, None]
            self.seen[self.live[:, None].expand_as(tokens)[mine], tokens[mine]] = True

    def retain(self, alive: torch.Tensor) -> None:
        """Go on with some of the live rows (their numbers); the KV cache lets go of the others once they are many."""
        if len(alive) == len(self.live):
            return
        self.live, self.cached, self.slots = self.live[alive], self.cached[alive], self.slots[alive]
        self.segments, self.logits = self.segments[alive], self.logits[alive]
        if 0 < 4 * len(self.segments) < 3 * self.cache.segments:
            self.cache.retain(self.segments)
            self.segments = torch.arange(len(self.segments), device=self.segments.device)

    def encode(self) -> None:
        """Encode the tokens written since the last call, so that `logits` hold for every live row."""
        counts = self.record.lengths[self.live] - self.cached
        behind = torch.nonzero(counts).flatten()
        if not len(behind):
            return
        counts = counts[behind]
        place = self.cached[behind, None] + torch.arange(int(counts.max()), device=counts.device)
        tokens = self.record.tokens[self.live[behind, None], place.clamp_max(self.record.tokens.shape[1] - 1)]
        logits, slots = self.cache.extend(self.segments[behind], self.slots[behind], tokens, counts)
        if len(behind) == len(self.live):
            self.logits, self.slots = logits, slots
        else:
            self.logits, self.slots = self.logits.index_copy(0, behind, logits), self.slots.index_copy(0, behind, slots)
        self.cached = self.record.lengths[self.live]

    def pick(self, choices: ValidNext | None) -> torch.Tensor:
        """Choose the next token [A] of each live row, of `choices` or of all; record it with its log-probability."""
        logits = self.logits
        if self.seen is not None:
            logits = penalise(logits.float(), self.seen[self.live], self.penalty)
        if choices is not None:
            logits = logits.gather(1, choices.tokens)
        valid = torch.ones_like(logits, dtype=torch.bool) if choices is None else choices.valid
        place = self.record.lengths[self.live]
        column, logps = self.choose(self.live, logits, valid, place)
        tokens = column if choices is None else choices.tokens.gather(1, column[:, None])[:, 0]
        self.write(tokens[:, None], torch.ones_like(tokens))
        self.record.logps[self.live, place] = logps
        return tokens

    def choose(
        self, rows: torch.Tensor, logits: torch.Tensor, valid: torch.Tensor, steps: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Choose a valid column of the logits [R, C] of some rows [R], at steps [R] of theirs.

        Returns:
            Columns [R], and their log-probabilities at the temperature [R].
        """
        logps = masked_log_softmax(logits.float() / (self.temperature or 1.0), valid)
        if self.temperature is None:
            column = logps.argmax(dim=1)
        else:
            owners, places = torch.stack([rows, steps]).cpu().numpy()
            numbers = uniforms(self.keys[owners], places)
            column = draw(logps, torch.from_numpy(numbers).to(logps.device))
        return column, logps.gather(1, column[:, None])[:, 0]


def _write_lists(batch: CompletionBatch, constraint: ListConstraint, excluded: Sequence[np.ndarray]) -> torch.Tensor:
    """Write one list per row under the constraint; return the items [N, K]."""
    device = batch.live.device
    state = constraint.start(excluded)
    group_size = len(batch.live) // len(excluded)
    state = state.take(torch.arange(len(excluded), device=device).repeat_interleave(group_size))
    items = torch.full((len(state), constraint.list_length), INVALID, dtype=torch.long, device=device)
    while len(batch.live):
        state, choices = _follow(batch, constraint, state)
        items[batch.live] = state.items
        alive = torch.nonzero(~state.done).flatten()
        batch.retain(alive)
        if len(batch.live):
            batch.encode()
            state = constraint.advance(state.take(alive), batch.pick(choices.take(alive)))
    return items


def _follow(batch: CompletionBatch, constraint: ListConstraint, state: State) -> tuple[State, ValidNext]:
    """Write all that is decided already: what the trie alone decides, and choices with one item left below them."""
    while True:
        state, tokens, counts = constraint.forced(state)
        batch.write(tokens, counts)
        choices = constraint.valid_tokens(state)
        single = (choices.counts == 1) & ~state.done
        rows = torch.nonzero(single).flatten()
        if not len(rows):
            return state, choices
        token = choices.tokens.gather(1, choices.valid.int().argmax(dim=1, keepdim=True))
        batch.write(token, single.long())
        state = state.put(rows, constraint.advance(state.take(rows), token[rows, 0]))


def _write_text(batch: CompletionBatch, titles: TitleTokens, list_length: int) -> torch.Tensor:
    """Write free text until its end, K separators or the length of the longest list; return the items [N, K]."""
    limit = titles.longest_response(list_length)
    separator = torch.as_tensor(np.asarray(titles.separator), device=batch.live.device)
    named = torch.zeros_like(batch.record.lengths)  # separators written
    while len(batch.live):
        batch.encode()
        tokens = batch.pick(None)
        lengths = batch.record.lengths[batch.live]
        if len(separator):
            back = (lengths[:, None] - len(separator) + torch.arange(len(separator), device=lengths.device)).clamp_min(
                0
            )
            named[batch.live] += (batch.record.tokens[batch.live[:, None], back] == separator).all(dim=1)
        unended = (tokens != titles.end) & (lengths < limit) & (named[batch.live] < list_length)
        batch.retain(torch.nonzero(unended).flatten())
    texts = zip(batch.record.tokens.tolist(), batch.record.lengths.tolist(), strict=True)
    lists = [titles.parse(tokens[:length])[:list_length] for tokens, length in texts]
    padded = [items + [INVALID] * (list_length - len(items)) for items in lists]
    return torch.tensor(padded, dtype=torch.long)
