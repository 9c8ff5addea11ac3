"""Answers to questions about single candidates, written together: the prompts of a row share what they begin with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from recalign.api import Rationales, StateAt
from recalign.decoding.prompt_cache import PromptCache
from recalign.decoding.random_numbers import answer_keys
from recalign.decoding.sampling import CompletionBatch

if TYPE_CHECKING:
    from recalign.data.questions import AnswerFormat
    from recalign.text.question_prompts import DecisionTokens

TEXT, OPENING, WORD = range(3)
"""What an answer is at: its free text, the tokens that open the decision, those of the decision's word."""
TENSORS = tuple(field.name for field in fields(Rationales) if field.name not in ("texts", "states"))


@dataclass(frozen=True)
class PosedQuestions:
    """N questions of one batch, row by row, G answers to each side by side.

    Args:
        prompts: [U] what the questions of each row begin with.
        rows: [N] int64, which row each answer is for.
        indices: [N] int64, that row's index in its split.
        items: [N] int64.
        places: [N] int64, place in the group.
        questions: [N] token ids that each prompt goes on with.
    """

    prompts: Sequence[np.ndarray]
    rows: np.ndarray
    indices: np.ndarray
    items: np.ndarray
    places: np.ndarray
    questions: Sequence[np.ndarray]


class OpeningFinder:
    """Tells where a text has written what opens a decision, however its tokens cut it.

    Args:
        tokenizer: of the text.
        opening: `<answer>`; formats with free text have one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, opening: str) -> None:
        self.tokenizer, self.opening = tokenizer, opening

    @cached_property
    def enders(self) -> np.ndarray:
        """[V] bool, tokens that may be the last of an opening: those with its last character."""
        tokens = self.tokenizer.convert_ids_to_tokens(range(len(self.tokenizer)))
        return np.array([token is not None and self.opening[-1] in token for token in tokens])

    def ends(self, tokens: np.ndarray, texts: np.ndarray) -> np.ndarray:
        """Return bool [A], whether the last tokens of each text have just written the opening.

        Args:
            tokens: [A] the last token of each text.
            texts: [A, R] the last R tokens of each, padded with -1 on the left.
        """
        found = self.enders[np.minimum(tokens, len(self.enders) - 1)] & (tokens < len(self.enders))
        for row in np.flatnonzero(found):
            tail = texts[row][texts[row] >= 0]
            found[row] = self.opening in self.tokenizer.decode(tail, clean_up_tokenization_spaces=False)
        return found

    @property
    def tail(self) -> int:
        """R: tokens that may spell an opening, and one that more stands in."""
        return len(self.opening) + 1


@contextmanager
def reading_head_inputs(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """Collect what the model's head is handed in each forward pass: the last hidden states [..., H] of some tokens."""
    seen: list[torch.Tensor] = []
    handle = model.get_output_embeddings().register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].detach())
    )
    try:
        yield seen
    finally:
        handle.remove()


class AnswerWriter:
    """Writes the answers of one batch.

    Args:
        cache: empty.
        model: the language model, for the states that its head is handed.
        tokenizer: of the answers.
        form: of the answers.
        decision: its tokens.
        end: the end token.
        max_tokens: of free text.
        temperature: as in `CompletionBatch`.
        states: whether last hidden states are wanted, and where.
    """

    def __init__(
        self,
        cache: PromptCache,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        form: AnswerFormat,
        decision: DecisionTokens,
        *,
        end: int,
        max_tokens: int,
        temperature: float | None,
        states: StateAt | None,
    ) -> None:
        self.cache, self.model, self.tokenizer, self.form, self.decision = cache, model, tokenizer, form, decision
        self.end, self.max_tokens, self.temperature, self.states = end, max_tokens, temperature, states
        self.finder = OpeningFinder(tokenizer, form.opening)

    def write(self, asked: PosedQuestions, seed: int, epoch: int) -> Rationales:
        """Answer N questions."""
        device, count = self.model.device, len(asked.items)
        self.cache.begin(asked.prompts, count // len(asked.prompts))
        keys = answer_keys(seed, epoch, asked.indices, asked.items, asked.places)
        batch = CompletionBatch(self.cache, torch.zeros(count, 0, device=device), keys, self.end, self.temperature)
        self.batch, self.begins = batch, _put(batch, batch.live, asked.questions)
        self.phase = torch.full((count,), TEXT if self.form.rationale else OPENING, device=device)
        self.opened = torch.full((count,), -1, device=device)
        self.recommended, self.forced = torch.zeros(2, count, dtype=torch.bool, device=device)
        self.log_odds = torch.zeros(count, device=device)
        self.chosen: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.read: torch.Tensor | None = None
        if not self.form.rationale:
            self._open(batch.live, written=False)
        while len(batch.live):
            self._step()
        return self._rationales(asked)

    def _step(self) -> None:
        """Encode what was written since, and let every live answer go on."""
        batch, live = self.batch, self.batch.live
        with reading_head_inputs(self.model) as seen:
            batch.encode()
        phase = self.phase[live]
        read = phase == (WORD if self.states == "decision" else OPENING)
        if self.states is not None and read.any():
            self._keep(seen[-1], read)
        opening, writing = (torch.nonzero(phase == at).flatten() for at in (OPENING, TEXT))
        if len(opening):
            self._decide(opening)
        if len(writing):
            self._go_on(writing)
        batch.retain(torch.nonzero(phase != WORD if self.states == "decision" else phase == TEXT).flatten())

    def _go_on(self, which: torch.Tensor) -> None:
        """Write a token of free text to some live answers; open the decision of those that come to it, or to an end."""
        batch = self.batch
        rows, logits = batch.live[which], batch.logits[which]
        step = batch.record.lengths[rows] - self.begins[rows]
        tokens, logps = batch.choose(rows, logits, torch.ones_like(logits, dtype=torch.bool), step)
        self._record(rows, tokens, logps)
        came = torch.from_numpy(self._came(rows, tokens)).to(rows.device)
        late = ~came & ((tokens == self.end) | (step + 1 >= self.max_tokens))
        self.forced[rows[late]] = True
        self._open(rows[came], written=True)
        self._open(rows[late], written=False)

    def _came(self, rows: torch.Tensor, tokens: torch.Tensor) -> np.ndarray:
        """Return bool [A], which answers have just written what opens the decision."""
        lengths = self.batch.record.lengths[rows, None]
        place = lengths - self.finder.tail + torch.arange(self.finder.tail, device=rows.device)
        texts = self.batch.record.tokens[rows[:, None], place.clamp_min(0)]
        texts = texts.masked_fill(place < self.begins[rows, None], -1)
        return self.finder.ends(tokens.cpu().numpy(), texts.cpu().numpy())

    def _open(self, rows: torch.Tensor, *, written: bool) -> None:
        """Write what opens the decision, unless the answer has it, and what both words begin with."""
        if not len(rows):
            return
        self.phase[rows] = OPENING
        fork = self.decision.paths[0][: self.decision.fork]
        forced = fork if written else np.concatenate([self.decision.opening, fork])
        if len(forced):
            _put(self.batch, rows, [forced] * len(rows))

    def _decide(self, which: torch.Tensor) -> None:
        """Choose between the two words for some live answers, and write what is left of them."""
        batch, decision = self.batch, self.decision
        rows, choice = batch.live[which], torch.tensor(decision.choice, device=batch.live.device)
        logits = batch.logits[which][:, choice].float()  # [R, 2]
        step = batch.record.lengths[rows] - self.begins[rows]
        column, logps = batch.choose(rows, logits, torch.ones_like(logits, dtype=torch.bool), step)
        self.opened[rows], self.recommended[rows] = step - 1, column == 0
        self.log_odds[rows] = logits[:, 0] - logits[:, 1]
        self._record(rows, choice[column], logps)
        self.phase[rows] = WORD
        for recommended in (True, False):
            mine = rows[self.recommended[rows] == recommended]
            word = decision.path(recommended)[decision.fork + 1 : decision.word(recommended)]
            if len(mine) and len(word):
                _put(batch, mine, [word] * len(mine))

    def _record(self, rows: torch.Tensor, tokens: torch.Tensor, logps: torch.Tensor) -> None:
        """Append a chosen token to some answers."""
        record = self.batch.record
        place = record.lengths[rows]
        record.write(rows, tokens[:, None], torch.ones_like(tokens))
        record.logps[rows, place] = logps
        self.chosen.append((rows, place))

    def _keep(self, states: torch.Tensor, mine: torch.Tensor) -> None:
        """Keep the states [1, A, H] that the head was handed for some live answers (bool [A])."""
        if self.read is None:
            self.read = states.new_zeros(len(self.phase), states.shape[-1])
        self.read[self.batch.live[mine]] = states[0][mine]

    def _rationales(self, asked: PosedQuestions) -> Rationales:
        """Close the decisions, and take the questions off."""
        record, decision = self.batch.record, self.decision
        words = torch.tensor(decision.words, device=self.phase.device)[(~self.recommended).long()]
        decided = self.opened + (words - decision.fork).clamp_min(1)
        for recommended in (True, False):
            mine = torch.nonzero(self.recommended == recommended).flatten()
            rest = decision.path(recommended)[max(decision.word(recommended), decision.fork + 1) :]
            if len(mine) and len(rest):
                _put(self.batch, mine, [rest] * len(mine))
        chosen = torch.zeros_like(record.tokens, dtype=torch.bool)
        for rows, place in self.chosen:
            chosen[rows, place] = True
        lengths = record.lengths - self.begins
        place = torch.arange(int(lengths.max()), device=lengths.device)
        inside, place = place < lengths[:, None], place + self.begins[:, None]
        place = place.clamp_max(record.tokens.shape[1] - 1)
        tokens = record.tokens.gather(1, place).masked_fill(~inside, self.end).cpu()
        texts = self.tokenizer.batch_decode(
            [row[: length - 1] for row, length in zip(tokens, lengths.tolist(), strict=True)],
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )
        return Rationales(
            rows=torch.from_numpy(asked.rows),
            items=torch.from_numpy(asked.items),
            tokens=tokens,
            lengths=lengths.cpu(),
            logps=record.logps.gather(1, place).masked_fill(~inside, 0.0).cpu(),
            chosen=(chosen.gather(1, place) & inside).cpu(),
            recommended=self.recommended.cpu(),
            log_odds=self.log_odds.cpu(),
            opened=self.opened.cpu(),
            decided=decided.cpu(),
            well_formed=~self.forced.cpu(),
            texts=texts,
            states=self.read,
        )


def join_answers(parts: Sequence[Rationales], order: np.ndarray, end: int) -> Rationales:
    """Put the answers of several batches into one order.

    Args:
        parts: batches, N answers in all.
        order: [N] place of each answer in the order wanted, batch after batch.
        end: the padding of tokens.
    """
    place = torch.from_numpy(np.argsort(order))
    width = max(part.tokens.shape[1] for part in parts)

    def joined(name: str, fill: float = 0) -> torch.Tensor:
        columns = [getattr(part, name) for part in parts]
        if columns[0].dim() == 2 and name != "states":
            columns = [torch.nn.functional.pad(each, (0, width - each.shape[1]), value=fill) for each in columns]
        whole = torch.cat(columns)
        return whole[place.to(whole.device)]

    texts = [text for part in parts for text in part.texts]
    tensors = {name: joined(name, end if name == "tokens" else 0) for name in TENSORS}
    states = None if parts[0].states is None else joined("states")
    return Rationales(**tensors, texts=[texts[index] for index in place.tolist()], states=states)


def _put(batch: CompletionBatch, rows: torch.Tensor, parts: Sequence[np.ndarray]) -> torch.Tensor:
    """Append given tokens to some rows; return how many each got: int64 [R]."""
    counts = torch.tensor([len(part) for part in parts], device=rows.device)
    tokens = np.zeros((len(parts), max(map(len, parts))), dtype=np.int64)
    for row, part in zip(tokens, parts, strict=True):
        row[: len(part)] = part
    batch.record.write(rows, torch.from_numpy(tokens).to(rows.device), counts)
    return counts
