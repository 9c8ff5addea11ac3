"""Questions about single candidates: answered, scored and scored again with gradients, on shared prompts."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from recalign.api import RANKING_HEAD, Rationales, Row, StateAt, ranking_head
from recalign.api.ranking_head import head_scores
from recalign.decoding.answer_logps import answer_logps
from recalign.decoding.answers import AnswerWriter, PosedQuestions, join_answers
from recalign.decoding.hidden_states import PromptedCompletions, last_hidden_states
from recalign.decoding.prompt_cache import CHAIN, room
from recalign.decoding.scoring import logits_of
from recalign.tasks.rank import candidates_of

if TYPE_CHECKING:
    from recalign.data.questions import AnswerFormat
    from recalign.decoding.engine import PolicyEngine


@dataclass(frozen=True)
class _Posed:
    """Questions that were encoded: [U] prompts, and [N] rows, items and what the prompts go on with, row by row."""

    prompts: list[np.ndarray]
    rows: np.ndarray
    items: np.ndarray
    questions: list[np.ndarray]

    def followed_by(self, answers: Sequence[np.ndarray], owners: np.ndarray) -> PromptedCompletions:
        """Lay out answers [A] to some of the questions (owners [A]) after their prompts."""
        parts = [np.concatenate([self.questions[owner], each]) for owner, each in zip(owners, answers, strict=True)]
        lengths = np.array([len(part) for part in parts], dtype=np.int64)
        tokens = np.zeros((len(parts), int(lengths.max(initial=1))), dtype=np.int64)
        for row, part in zip(tokens, parts, strict=True):
            row[: len(part)] = part
        return PromptedCompletions(self.prompts, tokens, lengths, self.rows[owners])


class EngineQuestions:
    """What is asked about single candidates; `engine.questions` (see `recalign.api.Questions`, which it implements).

    Args:
        engine: model, token budget and costs.
    """

    def __init__(self, engine: PolicyEngine) -> None:
        self.engine = engine

    def rationales(
        self,
        rows: Sequence[Row],
        items: Sequence[np.ndarray] | None = None,
        *,
        form: AnswerFormat,
        group_size: int = 1,
        max_tokens: int = 256,
        temperature: float | None = 1.0,
        seed: int = 0,
        epoch: int = 0,
        states: StateAt | None = None,
    ) -> Rationales:
        """Answer each question G times; see `recalign.api.Questions`."""
        engine, titles = self.engine, self.engine.policy.titles
        asked_items = _items_of(rows, items)
        posed = self._pose(rows, asked_items, form, max_tokens)
        decision = engine.policy.prompter.questions.decision(form)
        longest = self._answer_room(form, max_tokens) + max(map(len, posed.questions))
        parts, order = [], []
        with engine.inference():
            for batch in self._batches(posed, rows, group_size, longest):
                asked, numbers = _asked(posed, rows, batch, group_size)
                reach = max(map(len, asked.prompts)) + longest
                shared = engine.shares(reach)
                writer = AnswerWriter(
                    engine.cache_reaching(reach), engine.policy.model, engine.policy.tokenizer, form, decision,
                    end=titles.end, max_tokens=max_tokens, temperature=temperature, states=states if shared else None,
                )  # fmt: skip
                parts.append(writer.write(asked, seed, epoch))
                order.append(numbers)
            found = join_answers(parts, np.concatenate(order), titles.end)
            engine.cost.completion_tokens += int(found.lengths.sum())
            engine.cost.format_failures += int((~found.well_formed).sum())
            if states is not None and found.states is None:  # a model that encodes every prompt anew
                found = replace(found, states=self._states(posed, found, states))
        return found

    def logps(
        self,
        rows: Sequence[Row],
        answers: Rationales,
        *,
        form: AnswerFormat,
        max_tokens: int = 256,
        temperature: float = 1.0,
        states: StateAt | None = None,
        gradients: bool = True,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Compute log-probabilities of chosen tokens again; see `recalign.api.Questions`."""
        engine = self.engine
        used, owner_rows = np.unique(answers.rows.numpy(), return_inverse=True)
        keys = owner_rows * len(engine.catalogue) + answers.items.numpy()
        distinct, owners = np.unique(keys, return_inverse=True)
        items = [distinct[distinct // len(engine.catalogue) == row] % len(engine.catalogue) for row in range(len(used))]
        posed = self._pose([rows[row] for row in used], items, form, max_tokens)
        layout = posed.followed_by(_cut(answers), owners)
        begins = np.array([len(posed.questions[owner]) for owner in owners])
        at = None if states is None else begins + _places(answers, states)
        choice = engine.policy.prompter.questions.decision(form).choice
        with self._flowing(gradients) as tree_mask:
            return answer_logps(
                engine.policy.model, layout, answers, begins, choice,
                states=at, temperature=temperature, budget=engine.token_budget, tree_mask=tree_mask,
            )  # fmt: skip

    def word_logits(
        self,
        rows: Sequence[Row],
        items: Sequence[np.ndarray] | None = None,
        *,
        form: AnswerFormat,
        gradients: bool = False,
    ) -> torch.Tensor:
        """Return the logits [N, 2] of the two words; see `recalign.api.Questions`."""
        engine = self.engine
        form = replace(form, rationale=False)
        posed = self._pose(rows, _items_of(rows, items), form, 0)
        decision = engine.policy.prompter.questions.decision(form)
        before = np.concatenate([decision.opening, decision.paths[0][: decision.fork]])
        count = len(posed.items)
        layout = posed.followed_by([before] * count, np.arange(count))
        places = list(layout.lengths[:, None] - 1)
        engine.cost.prompts += len(posed.prompts)
        engine.cost.prompt_tokens += sum(map(len, posed.prompts))
        with self._flowing(gradients) as tree_mask:
            model = engine.policy.model
            hidden = last_hidden_states(model, layout, places, engine.token_budget, tree_mask, engine.cost)
            return logits_of(model, hidden, torch.tensor(decision.choice, device=hidden.device)).float()

    def answers(
        self, rows: Sequence[Row], items: Sequence[np.ndarray] | None = None
    ) -> tuple[np.ndarray, list[str] | None]:
        """Score candidates as the model was trained to; see `recalign.api.Questions`."""
        policy, answering = self.engine.policy, self.engine.policy.answering
        headed = policy.has_module(RANKING_HEAD)
        if not headed and not answering.form.rationale:
            logits = self.word_logits(rows, items, form=answering.form)
            return (logits[:, 0] - logits[:, 1]).cpu().numpy().astype(np.float64), None
        found = self.rationales(
            rows, items, form=answering.form, max_tokens=answering.max_tokens, temperature=None,
            states=answering.state if headed else None,
        )  # fmt: skip
        scores = self.head_scores(found.states) if headed else found.log_odds
        return scores.cpu().numpy().astype(np.float64), found.texts if answering.form.rationale else None

    def head_scores(self, states: torch.Tensor) -> torch.Tensor:
        """Return the ranking head's scores [N] of hidden states [N, H], without gradients."""
        head = self.engine.policy.attach({RANKING_HEAD: ranking_head})[RANKING_HEAD]
        with torch.no_grad():
            return head_scores(head, states)

    # ------------------------------------------------------------ prompts, batches

    def _pose(self, rows: Sequence[Row], items: Sequence[np.ndarray], form: AnswerFormat, max_tokens: int) -> _Posed:
        """Encode the questions about the items [U] of each row."""
        prompts, questions = [], []
        needed = self._answer_room(form, max_tokens)
        for row, each in zip(rows, items, strict=True):
            shared, rest = self.engine.policy.prompter.questions.encode(row, each, form, needed)
            prompts.append(shared)
            questions += rest
        counts = [len(each) for each in items]
        return _Posed(prompts, np.arange(len(rows)).repeat(counts), np.concatenate(items).astype(np.int64), questions)

    def _answer_room(self, form: AnswerFormat, max_tokens: int) -> int:
        """Tokens of the longest answer."""
        return (max_tokens if form.rationale else 0) + self.engine.policy.prompter.questions.decision(form).longest

    def _batches(self, posed: _Posed, rows: Sequence[Row], group_size: int, longest: int) -> list[np.ndarray]:
        """Rows with as many questions each and prompts of like length, within the token budget."""
        counts = np.bincount(posed.rows, minlength=len(rows))
        found = []
        for count in np.unique(counts):
            mine = np.flatnonzero(counts == count)
            prompts = [posed.prompts[row] for row in mine]
            beside = int(count) * group_size * room(longest, CHAIN)
            found += [mine[batch] for batch in self.engine.batches(prompts, beside)]
        return found

    def _states(self, posed: _Posed, found: Rationales, states: StateAt) -> torch.Tensor:
        """Encode answers again for their states, where the pass that wrote them kept none."""
        keys = posed.rows * len(self.engine.catalogue) + posed.items
        order = np.argsort(keys)
        wanted = found.rows.numpy() * len(self.engine.catalogue) + found.items.numpy()
        owners = order[np.searchsorted(keys[order], wanted)]
        layout = posed.followed_by(_cut(found), owners)
        begins = np.array([len(posed.questions[owner]) for owner in owners])
        places = list((begins + _places(found, states))[:, None])
        engine = self.engine
        return last_hidden_states(engine.policy.model, layout, places, engine.token_budget, False, engine.cost)

    @contextlib.contextmanager
    def _flowing(self, gradients: bool):  # type: ignore[no-untyped-def]
        """Run within inference unless gradients flow; yield whether the model takes prefix trees."""
        with self.engine.inference():
            tree_mask = self.engine.takes_tree_mask
        with contextlib.nullcontext() if gradients else self.engine.inference():
            yield tree_mask


def _items_of(rows: Sequence[Row], items: Sequence[np.ndarray] | None) -> Sequence[np.ndarray]:
    """Return the candidates of each row that are asked about."""
    return candidates_of(rows) if items is None else items


def _asked(posed: _Posed, rows: Sequence[Row], batch: np.ndarray, group_size: int) -> tuple[PosedQuestions, np.ndarray]:
    """Lay out the answers to the questions of some rows, G each; return their numbers among all N * G, too."""
    questions = np.concatenate([np.flatnonzero(posed.rows == row) for row in batch])
    every = questions.repeat(group_size)
    places = np.tile(np.arange(group_size), len(questions))
    asked = PosedQuestions(
        prompts=[posed.prompts[row] for row in batch],
        rows=posed.rows[every],
        indices=np.array([rows[row].index for row in posed.rows[every]]),
        items=posed.items[every],
        places=places,
        questions=[posed.questions[question] for question in every],
    )
    return asked, every * group_size + places


def _cut(answers: Rationales) -> list[np.ndarray]:
    """The tokens of each answer."""
    return [row[:length] for row, length in zip(answers.tokens.numpy(), answers.lengths.tolist(), strict=True)]


def _places(answers: Rationales, states: StateAt) -> np.ndarray:
    """Where a ranking head reads, counted from each answer's first token."""
    return {"decision": answers.decided, "open": answers.opened}[states].numpy()
