"""Prompts of a text template: rendered, put into the model's chat template where asked for, tokenised."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from recalign import console
from recalign.errors import UserError, did_you_mean
from recalign.text.chat_templates import ChatTemplate, open_thinking_block
from recalign.text.control_tokens import ControlTokens, LiteralText, literal_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from recalign.data.catalogue import Catalogue
    from recalign.text.item_tokens import TitleTokens
    from recalign.text.prompts import Template


class TextPrompts:
    """What prompts of a template read, and their tokens; titles are ordinary characters in them.

    Args:
        template: the template; `compact` has no text, and takes no variables.
        tokenizer: a Hugging Face tokenizer.
        catalogue: the items.
        titles: their token layout.
        task: `next` or `list`.
        list_length: how many titles a response names.

    Raises:
        UserError: a chat template is missing, fails, or draws at random; a variable that no template reads; a title
            that spells a control token to a tokenizer that cannot write its characters.
    """

    def __init__(
        self,
        template: Template,
        tokenizer: PreTrainedTokenizerBase,
        catalogue: Catalogue,
        titles: TitleTokens,
        *,
        task: str,
        list_length: int,
    ) -> None:
        self.template, self.tokenizer, self.end = template, tokenizer, titles.end
        self.task, self.list_length = task, list_length
        if template.chat and not tokenizer.chat_template:
            raise UserError(
                f"The template '{template.name}' needs the model's chat template, and the tokenizer has none.",
                "Use --template alpaca or compact.",
            )
        self.chat = ChatTemplate(tokenizer, template.variables, template.today) if template.chat else None
        self._check_variables()
        users = titles.texts is None or template.titles  # identifiers are ours
        self._names = catalogue.titles if titles.texts is None or template.titles else titles.texts
        self._control = ControlTokens(tokenizer)
        begins = self._control.begin_in
        self._suspects = {item for item, name in enumerate(self._names) if begins(name)} if users else set()
        if template.source is not None:
            self._warn_of_thinking()
            self._warn_of_what_is_unread()

    def render(
        self,
        history: Sequence[str],
        candidates: Sequence[str],
        *,
        candidate: str | None = None,
        profile: str = "",
        parts: Sequence[str] = (),
        answers: Sequence[str] = (),
    ) -> str:
        """Return the text of a prompt.

        Args:
            history: items as they read, oldest first.
            candidates: likewise.
            candidate: the one that a question is about; None: the prompt asks for items.
            profile: what is known of the user.
            parts: headings of the rationale that a question asks for, if any.
            answers: how a question is answered if the candidate is recommended, and if not.
        """
        text = self.template.render(
            history=list(history),
            candidates=list(candidates),
            list_length=self.list_length,
            task=self.task,
            candidate=candidate,
            profile=profile,
            parts=list(parts),
            answers=list(answers),
        )
        return text if self.chat is None else self.chat.render(text)

    def name_of(self, item: int) -> str:
        """Return an item as prompts show it."""
        return self._names[item]

    def encode(self, history: Sequence[int], candidates: Sequence[int] | None) -> list[int]:
        """Return the token ids of the prompt of these items.

        Raises:
            UserError: the template changes the characters of a title that spells a control token.
        """
        shown = [*history, *(() if candidates is None else candidates)]
        names = [self._names[item] for item in shown]
        text = self.render(names[: len(history)], names[len(history) :])
        hidden = None if self._suspects.isdisjoint(shown) else self._hidden(text, shown, len(history))
        special = self.chat is None  # chat templates write the special tokens that begin a text themselves
        if hidden is None:
            ids = self.tokenizer.encode(text, add_special_tokens=special)
        else:
            ids = self._literal.encode(hidden, add_special_tokens=special)
        # Some tokenizers end every text; the response is still to come.
        return ids[:-1] if len(ids) and ids[-1] == self.end else ids

    def encode_literally(self, text: str) -> list[int]:
        """Tokenise a text of the data's, whatever it spells, as ordinary characters.

        Raises:
            UserError: it spells a control token to a tokenizer that cannot write its characters.
        """
        if not self._control.begin_in(text):
            return list(self.tokenizer.encode(text, add_special_tokens=False))
        literal = LiteralText(self.tokenizer, self._control, [text])
        return literal.encode(literal.hide(text))

    def _hidden(self, text: str, shown: Sequence[int], history: int) -> str | None:
        """The prompt with users' texts hidden; None where they add no control token to it."""
        names = [self._literal.hide(self._names[item]) for item in shown]
        hidden = self.render(names[:history], names[history:])
        if [token for _, token in self._control.find(hidden)] == [token for _, token in self._control.find(text)]:
            return None
        if self._literal.reveal(hidden) != text:
            title = self._names[next(item for item in shown if item in self._suspects)]
            raise UserError(
                f"The title {title!r} spells a control token, and the template {self.template.name} rewrites its "
                "characters.",
                "Show titles as they are in the template (no filters that escape or search them), or rename the item.",
            )
        return hidden

    @cached_property
    def _literal(self) -> LiteralText:
        return literal_text(self.tokenizer, self._control, self._names, min(self._suspects))

    def _check_variables(self) -> None:
        known = self.template.reads | (frozenset() if self.chat is None else self.chat.reads)
        for name in self.template.variables:
            if name not in known:
                raise UserError(
                    f"--template-var {name}: neither the template {self.template.name} nor the model's chat template "
                    "reads it."
                    if self.chat
                    else f"--template-var {name}: the template {self.template.name} does not read it.",
                    did_you_mean(name, known) if known else "It reads no variables; leave the option out.",
                )

    def _warn_of_what_is_unread(self) -> None:
        """Tell of a template whose prompts are the same for every user."""
        titles = [self._names[0]], [self._names[-1], self._names[0]]
        if len({self.render(history, []) for history in titles}) == 1:
            which = "the model's chat template drops the text" if self.chat and self._fills() else "no history is shown"
            console.warn(
                f"Prompts by the template {self.template.name} are the same whatever the user's history is: {which}."
            )

    def _fills(self) -> bool:
        """Whether the Jinja text itself shows the history."""
        shown = (self.template.render(history=[name], **self._facts) for name in ("a", "b"))
        return len(set(shown)) > 1

    @property
    def _facts(self) -> dict[str, object]:
        return {"candidates": [], "list_length": self.list_length, "task": self.task}

    def _warn_of_thinking(self) -> None:
        tag = open_thinking_block(self.render([], []))
        if tag is not None:
            read = ", ".join(sorted(self.chat.reads)) if self.chat is not None else ""
            console.warn(
                f"Prompts end inside an open thinking block ({tag}), and responses begin in it. Most such chat "
                "templates close it with --template-var enable_thinking=false"
                + (f"; this one reads {read}." if read else "; this one reads no variables: use --template alpaca.")
            )
