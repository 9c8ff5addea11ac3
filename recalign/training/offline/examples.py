"""What token objectives are trained on: rows as token sequences, the order in which they come, padded batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from recalign.api import TokenNeeds
from recalign.data.dataset import Row
from recalign.models.policy import Policy
from recalign.tasks import find_task

IGNORED = -100


@dataclass(frozen=True)
class Example:
    """One row as a token sequence.

    Args:
        tokens: [L] int32, prompt and response: free text, where the task has some, and titles.
        prompt: how many of them are the prompt.
        row: what it was made from.
        text: how many tokens of the response, at its beginning, are free text.
    """

    tokens: np.ndarray
    prompt: int
    row: Row
    text: int = 0

    @property
    def titles(self) -> np.ndarray:
        """[T] int32 tokens of the response's titles."""
        return self.tokens[self.prompt + self.text :]


@dataclass(frozen=True)
class TokenBatch:
    """B sequences padded on the right to L tokens.

    A causal model needs no mask then: what follows a token cannot change it, and attention takes its fastest kernel.

    Args:
        input_ids: [B, L] int64.
        labels: [B, L] int64, the tokens that are learnt; IGNORED elsewhere.
        examples: [B].
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    examples: Sequence[Example]

    def to(self, device: torch.device) -> TokenBatch:
        """Return the batch on a device."""
        ids, labels = (tensor.to(device, non_blocking=True) for tensor in (self.input_ids, self.labels))
        return TokenBatch(ids, labels, self.examples)

    def parts(self, budget: int) -> list[TokenBatch]:
        """Cut the batch into parts of rows that follow each other, each within a budget; a longer row is one by itself.

        Args:
            budget: maximum number of tokens per part, padding included.
        """
        lengths = [len(example.tokens) for example in self.examples]
        bounds, longest = [0], 0
        for row, length in enumerate(lengths):
            longest = max(longest, length)
            if row > bounds[-1] and (row + 1 - bounds[-1]) * longest > budget:
                bounds, longest = [*bounds, row], length
        if len(bounds) == 1:
            return [self]
        return [self._rows(begin, end) for begin, end in zip(bounds, [*bounds[1:], len(lengths)], strict=True)]

    def _rows(self, begin: int, end: int) -> TokenBatch:
        """Return the batch of some of the rows, without the padding that they do not need."""
        examples = self.examples[begin:end]
        longest = max(len(example.tokens) for example in examples)
        return TokenBatch(self.input_ids[begin:end, :longest], self.labels[begin:end, :longest], examples)


@dataclass(frozen=True)
class Augmentation:
    """How a row varies from epoch to epoch, as a function of (seed, epoch, index) alone.

    Args:
        shuffle_targets: a fresh order of the targets, so that a list is learnt as a set: what comes next at all,
            not what comes first.
        history_dropout: share of the history's items left out.
        seed: of the draws.
    """

    shuffle_targets: bool = False
    history_dropout: float = 0.0
    seed: int = 0

    def __bool__(self) -> bool:
        return self.shuffle_targets or self.history_dropout > 0

    def vary(self, row: Row, epoch: int) -> Row:
        """Return the row as this epoch sees it; at least one item of the history stays."""
        generator = np.random.default_rng([self.seed, epoch, row.index])
        if self.shuffle_targets:
            order = generator.permutation(len(row.targets))
            row = replace(row, targets=row.targets[order], gains=row.gains[order])
        if self.history_dropout and len(row.history):
            kept = generator.random(len(row.history)) >= self.history_dropout
            kept[-1] |= not kept.any()
            row = row.recalling(kept)
        return row


def answered_rows(policy: Policy, rows: Sequence[Row], needs: TokenNeeds, seed: int = 0) -> Sequence[Row]:
    """Return what is answered of some rows: they themselves, or the questions that they ask about candidates.

    How questions are answered is noted among the model's settings: it will be asked in the same way.

    Args:
        policy: the model.
        rows: of a split.
        needs: of the objective: the form of answers, the number of negatives.
        seed: of the draw of negatives.
    """
    task = find_task(policy.prompter.task)
    answering = replace(policy.answering, form=needs.form or policy.answering.form)
    if task.asks:
        policy.settings["answering"] = asdict(answering)
    return task.questions(rows, answering.form, needs.negatives, seed)


class AnswerExamples(Dataset[Example]):
    """The rows of a split as prompts with the responses that they should get; encoded when first asked for, then kept.

    Args:
        policy: prompts, titles.
        rows: a split.
        answer_length: how many of a row's targets a response names at most.
        augmentation: how rows vary from epoch to epoch; rows that do are encoded anew each time.
        cache_tokens: keep the sequences of the first rows asked for until they have so many tokens (4 bytes each).
    """

    def __init__(
        self,
        policy: Policy,
        rows: Sequence[Row],
        answer_length: int,
        *,
        augmentation: Augmentation | None = None,
        cache_tokens: int = 100_000_000,
    ) -> None:
        self.policy, self.rows, self.answer_length = policy, rows, answer_length
        self.augmentation = augmentation or Augmentation()
        self._room = cache_tokens
        self._cache: dict[int, Example] = {}
        self._lengths: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, address: tuple[int, int]) -> Example:
        epoch, index = address
        example = self._cache.get(index)
        if example is None:
            row = self.rows[index]
            if self.augmentation:
                row = self.augmentation.vary(row, epoch)
            prompter = self.policy.prompter
            response = find_task(prompter.task).response(row, self.answer_length)
            prompt, (answer, text) = prompter.encode(row), prompter.answer(response)
            example = Example(np.concatenate([prompt, answer]).astype(np.int32), len(prompt), row, text)
            if self._room >= len(example.tokens) and not self.augmentation:
                self._room -= len(example.tokens)
                self._cache[index] = example
        return example

    def length_of(self, index: int) -> int:
        """Return an example's length in tokens (as the first epoch sees it)."""
        if index not in self._lengths:
            self._lengths[index] = len(self[0, index].tokens)
        return self._lengths[index]


def collate(examples: Sequence[Example], *, pad: int, all_tokens: bool) -> TokenBatch:
    """Pad sequences to a batch.

    Args:
        examples: [B].
        pad: any token id.
        all_tokens: learn the prompts' tokens too, not the responses' alone.
    """
    longest = max(len(example.tokens) for example in examples)
    tokens = np.full((len(examples), longest), pad, dtype=np.int64)
    labels = np.full((len(examples), longest), IGNORED, dtype=np.int64)
    for row, example in enumerate(examples):
        end, first = len(example.tokens), 1 if all_tokens else example.prompt  # nothing predicts the very first token
        tokens[row, :end] = example.tokens
        labels[row, first:end] = tokens[row, first:end]
    return TokenBatch(torch.from_numpy(tokens), torch.from_numpy(labels), examples)


class EpochSampler(Sampler[tuple[int, int]]):
    """Visits every example once an epoch, as (epoch, index): what is random about an example follows from that pair.

    The order is a function of (seed, epoch). With `length_of`, examples of like length share a batch: chunks of 50
    batches are sorted by length, cut into batches, and the batches shuffled, so that little is spent on padding.

    Args:
        size: how many examples there are.
        batch_size: examples a batch.
        seed: of the order.
        length_of: an example's length in tokens, or None to leave the order as drawn.
    """

    def __init__(self, size: int, batch_size: int, seed: int, length_of: Callable[[int], int] | None = None) -> None:
        self.size, self.batch_size, self.seed, self.length_of = size, batch_size, seed, length_of
        self.epoch = 0

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = np.random.default_rng([self.seed, self.epoch])
        order = generator.permutation(self.size)
        for start in range(0, self.size, 50 * self.batch_size):
            chunk = order[start : start + 50 * self.batch_size]
            if self.length_of is not None:
                lengths = np.array([self.length_of(int(index)) for index in chunk])
                chunk = chunk[np.argsort(-lengths, kind="stable")]
                full = len(chunk) // self.batch_size * self.batch_size
                batches = chunk[:full].reshape(-1, self.batch_size)
                chunk = np.concatenate([batches[generator.permutation(len(batches))].ravel(), chunk[full:]])
            for index in chunk:
                yield self.epoch, int(index)
