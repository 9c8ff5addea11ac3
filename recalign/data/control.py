"""Control tokens: what users write is ordinary characters to the model, also where it spells one of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from recalign.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

PRIVATE_USE = range(0x100000, 0x10FFFE)
"""Code points of Unicode's last plane, which no script and no icon font uses; those that a title has are left out."""


class ControlTokens:
    """The tokens of a tokenizer that stand for structure, not for the characters that they are spelt with.

    Such are the special tokens, and the added ones between marks: `<think>`, `[INST]`, `<item_42>`. Other added tokens
    are text: words, runs of spaces, a lone character.

    Args:
        tokenizer: a Hugging Face tokenizer, to which item tokens have been added.

    Attributes:
        tokens: their texts.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        added = tokenizer.added_tokens_decoder.values()
        self.tokens = frozenset(token.content for token in added if _is_control(token.content, token.special))
        self._lengths = sorted({len(token) for token in self.tokens}, reverse=True)
        self._start = re.compile("|".join(map(re.escape, self.first_characters)) or "(?!)")

    @cached_property
    def first_characters(self) -> list[str]:
        """The characters that a control token begins with."""
        return sorted({token[0] for token in self.tokens})

    def find(self, text: str) -> list[tuple[int, str]]:
        """Return where control tokens stand in a text, as (start, token): the first, of these the longest, and so on.

        This is how tokenizers look for them.
        """
        found: list[tuple[int, str]] = []
        after = 0
        for match in self._start.finditer(text):
            start = match.start()
            token = self._at(text, start) if start >= after else None
            if token is not None:
                found.append((start, token))
                after = start + len(token)
        return found

    def begin_in(self, text: str) -> bool:
        """Tell whether a control token begins in a text: the whole of it, or a part that other text may complete."""
        starts = [match.start() for match in self._start.finditer(text)]
        return any(self._at(text, start) is not None or text[start:] in self._beginnings for start in starts)

    def _at(self, text: str, start: int) -> str | None:
        candidates = (text[start : start + length] for length in self._lengths)
        return next((candidate for candidate in candidates if candidate in self.tokens), None)

    @cached_property
    def _beginnings(self) -> frozenset[str]:
        return frozenset(token[:length] for token in self.tokens for length in range(1, len(token)))


class LiteralText:
    """Tokenises text of a template in which users' texts stand, and those as ordinary characters.

    A user's text is hidden before it is put into the template: characters that a control token may begin with are
    replaced by private stand-ins, one for one. Control tokens that are found afterwards are the template's own. They
    are marked by a private guard, which stands before every control token in this class's copy of the tokenizer, and
    the stand-ins are put back. The copy takes `<think>` for ordinary characters therefore, and all else is as ever.

    Args:
        tokenizer: a fast Hugging Face tokenizer.
        control: its control tokens.
        texts: everything that users' texts may consist of.

    Raises:
        UserError: the tokenizer is not of the kind that can be copied.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, control: ControlTokens, texts: Iterable[str]) -> None:
        self.control = control
        used = set().union(*texts)
        private = (chr(point) for point in PRIVATE_USE if chr(point) not in used)
        self._guard = next(private)
        self._stand_ins = [(first, next(private)) for first in control.first_characters]
        self._backend = _guarded(tokenizer, control, self._guard)

    def hide(self, text: str) -> str:
        """Return a user's text as it may be put into a template."""
        for original, stand_in in self._stand_ins:  # they are few, and str.translate is ten times as slow
            text = text.replace(original, stand_in)
        return text

    def reveal(self, text: str) -> str:
        """Return what a text with hidden parts reads."""
        for original, stand_in in self._stand_ins:
            text = text.replace(stand_in, original)
        return text

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """Tokenise a text with hidden parts, as the tokenizer's own `encode` does but for these.

        Returns:
            Token ids.
        """
        parts: list[str] = []
        done = 0
        for start, token in self.control.find(text):
            parts += [text[done:start], self._guard, token]
            done = start + len(token)
        guarded = self.reveal("".join([*parts, text[done:]]))
        return list(self._backend.encode_batch_fast([guarded], add_special_tokens=add_special_tokens)[0].ids)


def literal_titles(tokenizer: PreTrainedTokenizerBase, titles: Sequence[str]) -> list[list[int]]:
    """Tokenise titles, each by itself, as ordinary characters.

    Args:
        tokenizer: a Hugging Face tokenizer.
        titles: [I] texts.

    Returns:
        [I] token ids, without special tokens.

    Raises:
        UserError: a title has a control token, and the tokenizer cannot write its characters; the title is named.
    """
    encoded = tokenizer(list(titles), add_special_tokens=False)["input_ids"] if titles else []
    control = ControlTokens(tokenizer)
    spelling = [item for item, title in enumerate(titles) if control.find(title)]
    if spelling:
        literal = literal_text(tokenizer, control, titles, spelling[0])
        for item in spelling:
            encoded[item] = literal.encode(literal.hide(titles[item]))
    return encoded


def literal_text(
    tokenizer: PreTrainedTokenizerBase, control: ControlTokens, titles: Sequence[str], item: int
) -> LiteralText:
    """Return what tokenises these titles as ordinary characters.

    Raises:
        UserError: the tokenizer cannot; the title of `item`, which asks for it, is named.
    """
    try:
        return LiteralText(tokenizer, control, titles)
    except UserError as error:
        raise UserError(f"The title {titles[item]!r} spells a control token, and {error.what}", error.hint) from None


def _is_control(text: str, special: bool) -> bool:
    if not text.strip() or len(text) == 1:
        return False
    marked = not (text[0].isalnum() or text[0].isspace() or text[-1].isalnum() or text[-1].isspace())
    return special or (marked and any(character.isalnum() for character in text))


def _guarded(tokenizer: PreTrainedTokenizerBase, control: ControlTokens, guard: str) -> Tokenizer:
    """Copy a tokenizer, with the guard put before the text of every control token; the ids stay."""
    hint = "Rename the item, or use a model with a fast tokenizer (tokenizer.json)."
    if not tokenizer.is_fast:
        raise UserError(f"{type(tokenizer).__name__} cannot write its characters.", hint)
    from tokenizers import Tokenizer

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["truncation"] = state["padding"] = None
    for token in state["added_tokens"]:
        if token["content"] in control.tokens:
            token |= {"content": guard + token["content"], "normalized": False}
    _rename(state["model"], control, guard)
    backend = Tokenizer.from_str(json.dumps(state))
    ids = tokenizer.get_vocab()
    if any(backend.token_to_id(guard + token) != ids[token] for token in control.tokens):
        raise UserError("the tokenizer numbers its added tokens in a way that forbids writing their characters.", hint)
    return backend


def _rename(model: dict[str, Any], control: ControlTokens, guard: str) -> None:
    """Put the guard before the control tokens of a tokenizer's model, so that no characters are merged into one."""

    def name(token: str) -> str:
        return guard + token if token in control.tokens else token

    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {name(token): index for token, index in vocabulary.items()}
    else:  # of a unigram model: (token, score) in the order of the ids
        model["vocab"] = [[name(token), score] for token, score in vocabulary]
    if isinstance(model.get("unk_token"), str):
        model["unk_token"] = name(model["unk_token"])
    if model.get("merges"):
        pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
        model["merges"] = [pair for pair in pairs if not control.tokens & {*pair, "".join(pair)}]
