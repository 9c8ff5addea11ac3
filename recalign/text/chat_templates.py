"""Chat templates of models: rendered the same way at any time, with variables of the user's."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from functools import cached_property
from typing import TYPE_CHECKING

import jinja2
import jinja2.meta
import jinja2.nodes

from recalign.errors import UserError
from recalign.text.bounded_templates import BoundedEnvironment, render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Scalar = bool | int | float | str
DATE = date(2024, 7, 26)
"""The day that templates are told which ask for today's: the one that Llama 3's templates name where there is none.

A date of the clock would give a model other prompts tomorrow than today."""
OWN_VARIABLES = frozenset({"history", "candidates", "list_length", "task", "candidate", "profile", "parts", "answers"})
"""What a prompt template is handed."""
CHAT_VARIABLES = frozenset({"messages", "tools", "documents", "add_generation_prompt", "strftime_now"})
"""What a chat template is handed."""
_THINKING = re.compile(r"[<\[](/?)(?:\w+:)?(?:think|thinking|thoughts?|reasoning)[>\]]", re.IGNORECASE)


def parse_variables(assignments: Iterable[str]) -> dict[str, Scalar]:
    """Read `--template-var name=value`: true, false and numbers are such, all else is text.

    Args:
        assignments: as typed; JSON's quotation marks make text of a number: `year="2024"`.

    Raises:
        UserError: no assignment, a name that no template can read, one that recalign sets, or a name given twice.
    """
    variables: dict[str, Scalar] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise UserError(
                f"--template-var {text!r} is not of the form name=value.",
                "Write it as --template-var enable_thinking=false.",
            )
        if name in OWN_VARIABLES | CHAT_VARIABLES:
            raise UserError(f"--template-var {name}: this variable is set by recalign itself.", "Leave it out.")
        if name in variables:
            raise UserError(f"--template-var {name} is given twice ({text!r} is the second).", "Keep one of them.")
        variables[name] = _scalar(value)
    return variables


def _scalar(text: str) -> Scalar:
    try:
        value = json.loads(text, parse_constant=str)
    except ValueError:
        return text
    return value if isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)) else text


def variables_read(environment: jinja2.Environment, source: str) -> frozenset[str]:
    """Return the names that a template looks up, and that neither it nor the environment sets."""
    return frozenset(jinja2.meta.find_undeclared_variables(environment.parse(source)))


def open_thinking_block(text: str) -> str | None:
    """Return the tag of the thinking block that a prompt ends in, such as `<think>`; None where none is open."""
    last = None
    for match in _THINKING.finditer(text):
        last = None if match[1] else match[0]
    return last


class ChatTemplate:
    """A tokenizer's chat template, asked for one user turn and the start of the answer.

    It is what transformers' `apply_chat_template` renders, but for what varies from call to call: the date is fixed,
    and drawing at random is refused.

    Args:
        tokenizer: a Hugging Face tokenizer that has a chat template.
        variables: of the user's, by name.
        today: the date that the template is told.

    Raises:
        UserError: the chat template does not parse, or has several forms and no default.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, variables: Mapping[str, Scalar], today: date = DATE) -> None:
        # The environment of transformers: its sandbox, filters and tags are what chat templates are written for.
        from transformers.utils.chat_template_utils import _compile_jinja_template

        midnight = datetime.combine(today, time())
        try:
            self._source = tokenizer.get_chat_template()
            environment = BoundedEnvironment.like(_compile_jinja_template("").environment)
            self._program = environment.from_string(self._source, globals={"strftime_now": midnight.strftime})
        except Exception as error:  # whatever the tokenizer's files hold in its place
            raise self._error(error) from None
        self._given = {**tokenizer.special_tokens_map, **variables}
        self._special = frozenset(tokenizer.special_tokens_map)

    @cached_property
    def reads(self) -> frozenset[str]:
        """Names of the variables that a user may set."""
        return variables_read(self._program.environment, self._source) - CHAT_VARIABLES - self._special

    @property
    def asks_for_the_date(self) -> bool:
        """Whether prompts depend on the date that the template is told."""
        names = self._program.environment.parse(self._source).find_all(jinja2.nodes.Name)
        return any(node.name == "strftime_now" for node in names)

    def render(self, text: str) -> str:
        """Return a chat of one user turn, up to where the answer begins.

        Raises:
            UserError: the chat template refuses such a chat or fails on it.
        """
        turn = [{"role": "user", "content": text}]
        given = {"messages": turn, "tools": None, "documents": None, "add_generation_prompt": True, **self._given}
        try:
            return render(self._program, given)
        except Exception as error:  # a chat template is the model's program: it may raise anything
            raise self._error(error) from None

    def _error(self, error: Exception) -> UserError:
        place = f", line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
        told = " ".join(str(error).split()) or type(error).__name__
        return UserError(
            f"The model's chat template{place}: {told.rstrip('.')}.",
            "It is asked for one user turn. Set what it reads with --template-var, or use --template alpaca.",
        )
