"""Prompts that ask about one candidate: what all questions of a row begin with, what each goes on with, and answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from recalign.data.questions import PARTS, AnswerFormat
from recalign.errors import UserError
from recalign.text.control_tokens import ControlTokens, LiteralText

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from recalign.data.catalogue import Catalogue
    from recalign.data.dataset import Row
    from recalign.text.item_tokens import TitleTokens
    from recalign.text.prompts import Template
    from recalign.text.text_prompts import TextPrompts

TEXT_WORDS = 100
"""Words of an item's text that a prompt shows at most (as R2ec cuts descriptions)."""
FIRST_DATE = 315_532_800.0
"""1980 in seconds: smaller times are no dates but counts."""
PLACEHOLDER = chr(0x10FFFD)
"""What stands for the candidate where the text before it is looked for; a private code point."""


class ShownItem(str):
    """An item as a template sees it: its title, a text, with `genres`, `text`, `rating` and `when` beside it."""

    genres: list[str]
    text: str
    rating: str
    when: str

    def __new__(
        cls, title: str, genres: Sequence[str] = (), text: str = "", rating: str = "", when: str = ""
    ) -> ShownItem:
        """Make an item of its parts."""
        item = super().__new__(cls, title)
        item.genres, item.text, item.rating, item.when = list(genres), text, rating, when
        return item


@dataclass(frozen=True)
class DecisionTokens:
    """The tokens of a decision under one format.

    Args:
        opening: [O] what opens it; none where nothing does.
        paths: what follows if the candidate is recommended, and if not: the word, what closes it, the end token.
        words: how many tokens of each path are the word.
        fork: place of the first token in which the paths differ.
    """

    opening: np.ndarray
    paths: tuple[np.ndarray, np.ndarray]
    words: tuple[int, int]
    fork: int

    @property
    def choice(self) -> tuple[int, int]:
        """The two tokens of which one decides."""
        first, second = (int(path[self.fork]) for path in self.paths)
        return first, second

    def path(self, recommended: bool) -> np.ndarray:
        """Return what follows the opening."""
        return self.paths[0 if recommended else 1]

    def word(self, recommended: bool) -> int:
        """Return how many tokens the word has."""
        return self.words[0 if recommended else 1]

    @property
    def longest(self) -> int:
        """Tokens of the longest decision, its opening included."""
        return len(self.opening) + max(map(len, self.paths))


class QuestionPrompts:
    """Renders questions about single candidates, and the answers that training teaches.

    The prompt of a question is cut in two where its text first speaks of the candidate, at the beginning of that line.
    Both parts are tokenised by themselves, so that the first is the same for all candidates of a row.

    Args:
        prompts: the template with its chat template.
        tokenizer: a Hugging Face tokenizer.
        catalogue: the items.
        titles: their token layout.
        limit: tokens of prompt and answer together; None: no limit.
        reserved: tokens that prompts leave for the answer at least.
    """

    def __init__(
        self,
        prompts: TextPrompts,
        tokenizer: PreTrainedTokenizerBase,
        catalogue: Catalogue,
        titles: TitleTokens,
        *,
        limit: int | None,
        reserved: int,
    ) -> None:
        self.prompts, self.tokenizer, self.catalogue, self.titles = prompts, tokenizer, catalogue, titles
        self.limit, self.reserved = limit, reserved
        self._control = ControlTokens(tokenizer)
        self._decisions: dict[AnswerFormat, DecisionTokens] = {}
        self.cut: set[tuple[str, int]] = set()

    def encode(
        self, row: Row, items: Sequence[int] | np.ndarray, form: AnswerFormat, room: int = 0
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Encode the questions about some candidates of a row.

        The history's oldest items are left out where the longest question of all the row's candidates leaves no room;
        which candidates are asked about changes nothing.

        Args:
            row: with candidates.
            items: [X] those that are asked about.
            form: how they are answered.
            room: tokens to leave for the answer, where that is more than `reserved`.

        Returns:
            [L] token ids that every prompt begins with, and [X] those that it goes on with.

        Raises:
            UserError: there is no room for a prompt without any history.
        """
        every = items if row.candidates is None else np.union1d(items, row.candidates)
        shared, questions = self._encode(row, every, form)
        longest = max(map(len, questions.values())) + max(room, self.reserved)
        if self.limit is not None and len(shared) + longest > self.limit:
            shared, questions = self._shortened(row, every, form, self.limit - longest)
            self.cut.add((row.user_id, row.index))
        return shared, [questions[int(item)] for item in items]

    def decision(self, form: AnswerFormat) -> DecisionTokens:
        """Return the tokens of the decision under a format.

        Raises:
            UserError: the tokenizer writes both words alike.
        """
        if form not in self._decisions:
            self._decisions[form] = self._decision(form)
        return self._decisions[form]

    def answer(self, form: AnswerFormat, recommended: bool, rationale: str = "") -> tuple[np.ndarray, int]:
        """Encode an answer: int64 token ids, and how many of them are free text."""
        decision = self.decision(form)
        text = self.prompts.encode_literally(f"{rationale.strip()}\n") if rationale.strip() else []
        parts = [np.asarray(text, dtype=np.int64), decision.opening, decision.path(recommended)]
        return np.concatenate(parts), len(text)

    def _shortened(
        self, row: Row, every: np.ndarray, form: AnswerFormat, room: int
    ) -> tuple[np.ndarray, dict[int, np.ndarray]]:
        """Encode with as much of the history as fits `room` tokens before the questions."""
        fits, too_many = -1, len(row.history)  # how many of the most recent items
        best: tuple[np.ndarray, dict[int, np.ndarray]] | None = None
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            found = self._encode(row.recalling(slice(len(row.history) - middle, None)), every, form)
            if len(found[0]) <= room:
                fits, best = middle, found
            else:
                too_many = middle
        if best is None:
            raise UserError(
                f"User {row.user_id}'s questions with their answers have more than the {self.limit} tokens that fit, "
                "without any history.",
                "Raise --max-length, or ask for shorter rationales.",
            )
        return best

    def _encode(
        self, row: Row, items: Sequence[int] | np.ndarray, form: AnswerFormat
    ) -> tuple[np.ndarray, dict[int, np.ndarray]]:
        if self.prompts.template.source is None:
            start = self.tokenizer.bos_token_id
            shared = [[self.titles.end if start is None else start], self.titles.join(row.history.tolist(), close=True)]
            # The end token sets the candidate off: else it would look like the history's latest item.
            every = {
                int(item): np.concatenate([[self.titles.end], self.titles.join([int(item)], close=True)])
                for item in items
            }
            return np.concatenate(shared).astype(np.int64), every
        literal = self._literal if self._spells_control(row, items) else None
        texts = self._texts(row, items, form, literal)
        shared_text = next(texts)
        special = self.prompts.chat is None  # chat templates write the special tokens that begin a text themselves
        shared_ids = self._ids(shared_text, literal, special)
        return shared_ids, {int(item): self._ids(text, literal, False) for item, text in zip(items, texts, strict=True)}

    def _ids(self, text: str, literal: LiteralText | None, special: bool) -> np.ndarray:
        if literal is not None:
            ids = literal.encode(text, add_special_tokens=special)
        else:
            ids = self.tokenizer.encode(text, add_special_tokens=special)
        # Some tokenizers end every text; the rest of the prompt is still to come.
        return np.asarray(ids[:-1] if special and len(ids) and ids[-1] == self.titles.end else ids, dtype=np.int64)

    def _texts(
        self, row: Row, items: Sequence[int] | np.ndarray, form: AnswerFormat, literal: LiteralText | None
    ) -> Iterator[str]:
        """Yield the text that all questions begin with, and then what each goes on with."""
        hide = (lambda text: text) if literal is None else literal.hide
        history = [self._shown(int(item), hide, row, place) for place, item in enumerate(row.history)]
        common: dict[str, Any] = dict(history=history, profile=hide(row.profile), form=form)
        shown = self._render(ShownItem(PLACEHOLDER, [PLACEHOLDER], PLACEHOLDER), common)
        at = shown.find(PLACEHOLDER)
        if at < 0:
            raise UserError(
                f"The template {self.prompts.template.name} does not show the candidate that a question is about.",
                "Write {{ candidate }} in it where `candidate` is set, after the history.",
            )
        shared = shown[: shown.rfind("\n", 0, at) + 1]
        yield shared
        for item in items:
            text = self._render(self._shown(int(item), hide), common)
            if not text.startswith(shared):
                raise UserError(
                    f"The template {self.prompts.template.name} lets the candidate change the text before it.",
                    "Let what stands above the candidate depend on the history and the profile alone.",
                )
            yield text[len(shared) :]

    def _render(self, candidate: ShownItem, common: dict[str, Any]) -> str:
        form: AnswerFormat = common["form"]
        return self.prompts.render(
            common["history"],
            [],
            candidate=candidate,
            profile=common["profile"],
            parts=list(PARTS) if form.rationale else [],
            answers=[form.line(True), form.line(False)],
        )

    def _shown(self, item: int, hide: Any, row: Row | None = None, place: int = 0) -> ShownItem:
        """Return an item as prompts show it; with a row, as the `place`-th of its history."""
        return shown_item(self.catalogue, item, self.prompts.name_of(item), row, place, hide)

    def _spells_control(self, row: Row, items: Sequence[int] | np.ndarray) -> bool:
        begins = self._control.begin_in
        shown = {*row.history.tolist(), *map(int, items)}
        return begins(row.profile) or any(begins("\n".join(self._fields(item))) for item in shown)

    def _fields(self, item: int) -> list[str]:
        return [self.catalogue.titles[item], *self.catalogue.genres[item], self.catalogue.texts[item]]

    @cached_property
    def _literal(self) -> LiteralText:
        return LiteralText(
            self.tokenizer, self._control, [text for item in range(len(self.catalogue)) for text in self._fields(item)]
        )

    def _decision(self, form: AnswerFormat) -> DecisionTokens:
        def ids(text: str) -> np.ndarray:
            return np.asarray(self.tokenizer.encode(text, add_special_tokens=False) if text else [], dtype=np.int64)

        closing = np.append(ids(form.closing), self.titles.end)
        words = [ids(word) for word in form.words]
        paths = [np.concatenate([word, closing]) for word in words]
        width = min(map(len, paths))
        differ = np.flatnonzero(paths[0][:width] != paths[1][:width])
        if not len(differ) or any(self.tokenizer.unk_token_id in word for word in words):
            raise UserError(
                f"The tokenizer cannot write the answers {form.words[0]!r} and {form.words[1]!r}, or tell them apart.",
                "Choose other words, or use a model whose tokenizer has them.",
            )
        return DecisionTokens(ids(form.opening), (paths[0], paths[1]), (len(words[0]), len(words[1])), int(differ[0]))


def shown_item(
    catalogue: Catalogue,
    item: int,
    name: str,
    row: Row | None = None,
    place: int = 0,
    hide: Callable[[str], str] = str,
) -> ShownItem:
    """Return an item as prompts show it.

    Args:
        catalogue: the items.
        item: index of the item.
        name: how it is written.
        row: of whose history it is a part, which says when it was had and how it was rated; None: of none.
        place: of it in that history.
        hide: is applied to all that users wrote.
    """
    words = catalogue.texts[item].split()
    text = " ".join(words[:TEXT_WORDS]) + (" ..." if len(words) > TEXT_WORDS else "")
    rating = when = ""
    if row is not None and row.ratings is not None and np.isfinite(row.ratings[place]):
        rating = f"{row.ratings[place]:g}"
    if row is not None and row.times is not None and row.times[place] >= FIRST_DATE:
        when = datetime.fromtimestamp(row.times[place], timezone.utc).strftime("%Y-%m-%d")
    genres = [hide(genre) for genre in catalogue.genres[item]]
    return ShownItem(hide(name), genres, hide(text), rating, when)


def question_text(template: Template, catalogue: Catalogue, row: Row, *, task: str) -> str:
    """Return the prompt of a row's question as text, without a chat template: what somebody else's model is asked.

    Args:
        template: a text template.
        catalogue: the items, which are written by their titles.
        row: with a question.
        task: of the dataset.

    Raises:
        UserError: the template has no text.
    """
    assert row.question is not None, "the row asks nothing about one candidate"
    if template.source is None:
        raise UserError(
            f"The template {template.name} is a layout of tokens and has no text.", "Use chat, alpaca or a Jinja file."
        )
    form, titles = row.question.form, catalogue.titles
    return template.render(
        history=[shown_item(catalogue, int(item), titles[item], row, at) for at, item in enumerate(row.history)],
        candidates=[],
        list_length=1,
        task=task,
        candidate=shown_item(catalogue, row.question.item, titles[row.question.item]),
        profile=row.profile,
        parts=list(PARTS) if form.rationale else [],
        answers=[form.line(True), form.line(False)],
    ).strip()
