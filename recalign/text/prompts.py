"""Prompt templates: how a row's history becomes the token ids that a response goes on from."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np

from recalign import console
from recalign.errors import UserError, did_you_mean
from recalign.reading import read_text
from recalign.tasks import Response
from recalign.text.bounded_templates import BoundedEnvironment, render
from recalign.text.chat_templates import DATE, OWN_VARIABLES, Scalar, variables_read
from recalign.text.item_tokens import TitleTokens
from recalign.text.question_prompts import QuestionPrompts
from recalign.text.text_prompts import TextPrompts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from recalign.data.catalogue import Catalogue
    from recalign.data.dataset import Row

TITLES = "-titles"
TEMPLATES = ("compact", "alpaca", "chat", "alpaca" + TITLES, "chat" + TITLES)
"""With semantic or atomic identifiers, the last two show titles in the prompt; the response is still identifiers."""
_NO_QUESTION: Mapping[str, Any] = {"candidate": None, "profile": "", "parts": (), "answers": ()}
_ENVIRONMENT = BoundedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=False)


@dataclass(frozen=True)
class Template:
    """A prompt template.

    A Jinja template is handed `history` and `candidates` (items as the response writes them, oldest first),
    `list_length` and `task`. A question about one item has `candidate`, which is none elsewhere, `profile` (of the
    user), `parts` (headings of the rationale that it asks for) and `answers` (the two that it may get); its items have
    `genres`, `text`, `rating` and `when` too, empty where nothing is known.

    A template may set three constants: `{% set chat = true %}` makes its text a user turn in the
    model's own chat template; `{% set separator = "; " %}` is the text between the titles of a response;
    `{% set titles = true %}` shows titles where the response writes semantic or atomic identifiers.

    Args:
        name: `compact`, `alpaca`, `chat`, or the file's path.
        source: the Jinja text; None for `compact`, whose prompt is `BOS h1 SEP h2 SEP ... hn SEP`: the history in the
            very token layout of the response, which simply goes on.
        variables: of the user's, by name, for the Jinja text and for the model's chat template.
        today: the date that a chat template is told.
    """

    name: str
    source: str | None = None
    variables: Mapping[str, Scalar] = field(default_factory=dict)
    today: date = DATE

    @property
    def chat(self) -> bool:
        """Whether the text is a user turn in the model's chat template."""
        return bool(self._constants.get("chat", False))

    @property
    def titles(self) -> bool:
        """Whether prompts show titles, however the response writes items."""
        return bool(self._constants.get("titles", False))

    @property
    def separator(self) -> str | None:
        """Text between titles, or None for the tokenizer's own separator."""
        value = self._constants.get("separator")
        return None if value is None else str(value)

    def render(self, **variables: Any) -> str:
        """Fill in the template.

        Raises:
            UserError: the template does not parse or fails on these variables; the line is named.
        """
        try:
            return render(self._program, {**_NO_QUESTION, **self.variables, **variables})
        except jinja2.TemplateSyntaxError as error:
            raise self._error(error, error.lineno) from None
        except Exception as error:  # a template is the user's program: whatever it raises is theirs to mend
            frames = traceback.extract_tb(error.__traceback__)
            lines = [frame.lineno for frame in frames if frame.filename == "<template>"]
            raise self._error(error, lines[-1] if lines else None) from None

    @cached_property
    def reads(self) -> frozenset[str]:
        """Names of the variables that a user may set in the Jinja text."""
        try:
            read = variables_read(_ENVIRONMENT, self.source or "")
        except jinja2.TemplateSyntaxError as error:
            raise self._error(error, error.lineno) from None
        return read - OWN_VARIABLES

    @cached_property
    def _program(self) -> jinja2.Template:
        return _ENVIRONMENT.from_string(self.source or "")

    @cached_property
    def _constants(self) -> dict[str, Any]:
        """Top-level `{% set name = constant %}` of the template."""
        try:
            body = _ENVIRONMENT.parse(self.source or "").body
        except jinja2.TemplateSyntaxError as error:
            raise self._error(error, error.lineno) from None
        return {
            node.target.name: node.node.value
            for node in body
            if isinstance(node, jinja2.nodes.Assign)
            and isinstance(node.target, jinja2.nodes.Name)
            and isinstance(node.node, jinja2.nodes.Const)
        }

    def _error(self, error: Exception, line: int | None) -> UserError:
        place = f", line {line}" if line else ""
        return UserError(
            f"The template {self.name}{place}: {error}.",
            "A template may use history, candidates, list_length, task, candidate, profile, parts and answers, and "
            "what --template-var sets.",
        )


def load_template(name: str | Path) -> Template:
    """Find a template by name, or read a Jinja file.

    Raises:
        UserError: neither a built-in name nor a readable file.
    """
    if str(name) == "compact":
        return Template("compact")
    if str(name) in TEMPLATES:
        base = str(name).removesuffix(TITLES)
        text = resources.files("recalign.text").joinpath("templates", f"{base}.jinja").read_text("utf-8")
        return Template(str(name), text if base == name else "{%- set titles = true -%}" + text)
    path = Path(name)
    if not path.is_file():
        raise UserError(
            f"There is no template '{name}', and no such file.", did_you_mean(str(name), [*TEMPLATES, "a Jinja file"])
        )
    return Template(str(path), read_text(path, hint="Name a Jinja file in UTF-8."))


class Prompter:
    """Renders rows into prompt token ids.

    Args:
        template: a Template, a built-in name (`compact`, `alpaca`, `chat`) or a Jinja file.
        tokenizer: a Hugging Face tokenizer.
        catalogue: the items.
        titles: their token layout.
        task: `next` or `list`.
        list_length: how many titles a response names.
        max_tokens: longest prompt in tokens; longer ones lose their oldest items. None: no limit.
        reserved: tokens left for the response beside it.

    Attributes:
        questions: prompts that ask about one candidate.
        text: how prompts read, where the template is a text.
        truncated: how many different rows were cut to fit.

    Raises:
        UserError: see `TextPrompts`; a limit below the template itself.
    """

    def __init__(
        self,
        template: Template | str | Path,
        tokenizer: PreTrainedTokenizerBase,
        catalogue: Catalogue,
        titles: TitleTokens,
        *,
        task: str,
        list_length: int,
        max_tokens: int | None = None,
        reserved: int = 0,
    ) -> None:
        self.template = template if isinstance(template, Template) else load_template(template)
        self.tokenizer, self.titles = tokenizer, titles
        self.task, self.list_length, self.max_tokens = task, list_length, max_tokens
        self._cut: set[tuple[str, int, int]] = set()
        self.text = TextPrompts(self.template, tokenizer, catalogue, titles, task=task, list_length=list_length)
        limit = None if max_tokens is None else max_tokens + reserved
        self.questions = QuestionPrompts(self.text, tokenizer, catalogue, titles, limit=limit, reserved=reserved)
        if not self._fits(self._tokens([], None)):
            raise UserError(
                f"A prompt without any history has {len(self._tokens([], None))} tokens already; {max_tokens} fit.",
                "Raise --max-length, or use a shorter template.",
            )

    @property
    def truncated(self) -> int:
        """How many different rows were cut to fit."""
        return len(self._cut) + len(self.questions.cut)

    def tell(self, truncated: int | None = None) -> None:
        """Say how many rows were cut to fit (by default `truncated`), if any were."""
        count = self.truncated if truncated is None else truncated
        if count:
            console.warn(f"{count} prompts were longer than {self.max_tokens} tokens and lost their oldest items.")

    def encode(self, row: Row) -> np.ndarray:
        """Render a row's prompt.

        Returns:
            [L] int64 token ids; the history's oldest items are left out where more than `max_tokens` would be needed.
        """
        if row.question is not None:
            shared, (rest,) = self.questions.encode(row, [row.question.item], row.question.form)
            return np.concatenate([shared, rest])
        history = row.history.tolist()
        tokens = self._tokens(history, row.candidates)
        if self._fits(tokens):
            return tokens
        self._cut.add((row.user_id, row.index, hash(row.history.tobytes())))  # rows of several splits share an index
        fits, too_many = 0, len(history)  # how many of the most recent items
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            if self._fits(self._tokens(history[-middle:], row.candidates)):
                fits = middle
            else:
                too_many = middle
        tokens = self._tokens(history[len(history) - fits :], row.candidates)
        if not self._fits(tokens):
            raise UserError(
                f"User {row.user_id}'s prompt has {len(tokens)} tokens without any history; {self.max_tokens} fit.",
                "Raise --max-length, or prepare with fewer candidates.",
            )
        return tokens

    def answer(self, response: Response) -> tuple[np.ndarray, int]:
        """Encode a response: [L] int64 token ids, free text before titles, and how many of them are the text's."""
        if response.form is not None:
            return self.questions.answer(response.form, response.recommended, response.text)
        titles = self.titles.response(response.items)
        if not response.text:
            return titles, 0
        text = np.asarray(self.text.encode_literally(response.text), dtype=np.int64)
        return np.concatenate([text, titles]), len(text)

    def _fits(self, tokens: np.ndarray) -> bool:
        return self.max_tokens is None or len(tokens) <= self.max_tokens

    def _tokens(self, history: Sequence[int], candidates: Sequence[int] | None) -> np.ndarray:
        if self.template.source is None:
            start = self.tokenizer.bos_token_id
            start = self.titles.end if start is None else start
            return np.concatenate([[start], self.titles.join(history, close=True)]).astype(np.int64)
        return np.asarray(self.text.encode(history, candidates), dtype=np.int64)
