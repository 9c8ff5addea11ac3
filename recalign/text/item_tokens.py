"""The token layout of identifiers: every item's token path, the separator between titles, and the end token.

A response is `t1.. SEP t2.. SEP ... tK.. EOS`, each title tokenised by itself. The trie and the training labels are
both built from one `TitleTokens`, so that they are the same ids by construction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from recalign.errors import UserError, did_you_mean
from recalign.text.control_tokens import literal_titles

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from recalign.data.catalogue import Catalogue

INVALID = -1
NEWLINE = "\n"


@dataclass(frozen=True)
class TitleTokens:
    """How the items of a catalogue are written as tokens.

    Args:
        paths: [I] int64 token ids of each item's identifier, none empty, no two alike.
        separator: token ids between titles; may be empty, and then no path is a prefix of another.
        end: id of the end-of-sequence token.
        texts: [I] how each identifier reads in the text of a prompt; None: the title.
    """

    paths: list[np.ndarray]
    separator: np.ndarray
    end: int
    texts: list[str] | None = None

    def join(self, items: Sequence[int], *, close: bool = False) -> np.ndarray:
        """Lay titles end to end with separators between them.

        Args:
            items: item indices.
            close: put a separator after the last title too, as before a title that follows.

        Returns:
            int64 token ids, without the end token.
        """
        parts: list[np.ndarray] = []
        for item in items:
            parts += [self.paths[item], self.separator]
        if parts and not close:
            parts.pop()
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def response(self, items: Sequence[int]) -> np.ndarray:
        """Return the response that names these items: `t1.. SEP t2.. SEP ... EOS`, int64 token ids."""
        return np.append(self.join(items), self.end)

    def parse(self, tokens: Sequence[int]) -> list[int]:
        """Read unconstrained text back, the inverse of `response`.

        Args:
            tokens: generated token ids; reading stops at the end token.

        Returns:
            One entry per title: its item index, or INVALID where the tokens are no title. Without a separator, tokens
            that begin no title count as one invalid title per shortest identifier.
        """
        ids = [int(token) for token in tokens]
        if self.end in ids:
            ids = ids[: ids.index(self.end)]
        if not ids:
            return []
        if len(self.separator):
            return [self._item_of.get(title, INVALID) for title in _split(ids, self.separator.tolist())]
        items, at = [], 0
        while at < len(ids):
            found = next((n for n in self._lengths if tuple(ids[at : at + n]) in self._item_of), None)
            length = found or self._lengths[0]
            items.append(self._item_of[tuple(ids[at : at + length])] if found else INVALID)
            at += length
        return items

    def longest_response(self, list_length: int) -> int:
        """Return the most tokens that a response of so many different titles can have, its end token included."""
        longest = sorted((len(path) for path in self.paths), reverse=True)[:list_length]
        return sum(longest) + len(self.separator) * (len(longest) - 1) + 1

    @cached_property
    def fingerprint(self) -> str:
        """Hash of every path, the separator and the end token."""
        digest = hashlib.sha256(np.asarray([self.end, *self.separator], dtype=np.int64).tobytes())
        digest.update(np.fromiter(map(len, self.paths), dtype=np.int64).tobytes())
        digest.update(np.concatenate(self.paths).astype(np.int64).tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def _item_of(self) -> dict[tuple[int, ...], int]:
        return {tuple(path.tolist()): item for item, path in enumerate(self.paths)}

    @cached_property
    def _lengths(self) -> list[int]:
        return sorted({len(path) for path in self.paths})


def item_token(item_id: str) -> str:
    """Return the added token that stands for an item under atomic identifiers: `<item_42>`."""
    return f"<item_{item_id}>"


def added_tokens(catalogue: Catalogue, identifier: str) -> list[list[str]] | None:
    """Return the tokens to be added to a tokenizer that write each item, [I] lists; None where titles are written.

    Semantic identifiers are written `<s0_12><s1_3><s2_40>`: level and code.

    Raises:
        UserError: an unknown identifier, or a dataset without semantic codes.
    """
    if identifier == "title":
        return None
    if identifier == "atomic":
        return [[item_token(item_id)] for item_id in catalogue.item_ids]
    if identifier != "semantic":
        raise UserError(
            f"There is no identifier '{identifier}'.", did_you_mean(identifier, ["title", "semantic", "atomic"])
        )
    if catalogue.codes is None:
        raise UserError("This dataset has no semantic identifiers.", "Prepare it with --identifier semantic.")
    return [[f"<s{level}_{number}>" for level, number in enumerate(code)] for code in catalogue.codes]


def title_tokens(
    catalogue: Catalogue, tokenizer: PreTrainedTokenizerBase, identifier: str, separator: str | None = None
) -> TitleTokens:
    r"""Tokenise a catalogue, title by title; what a title spells is ordinary characters, see `control`.

    Args:
        catalogue: the items.
        tokenizer: a Hugging Face tokenizer.
        identifier: `title`, `semantic` (3-4 added tokens per item) or `atomic` (one); the tokenizer must have what is
            added, see `add_item_tokens`.
        separator: text between titles; by default the tokenizer's own separator token, or a newline where it has none.
            Semantic and atomic identifiers need none and have none.

    Raises:
        UserError: two items with the same tokens, a title without tokens or with the end or separator token inside, one
            that spells a control token to a tokenizer that cannot write its characters, a tokenizer without end token,
            separator or item tokens, an empty separator with a title that begins another.
    """
    if tokenizer.eos_token_id is None:
        raise UserError(
            "The tokenizer has no end-of-sequence token, so a response could not end.",
            "Set `eos_token` in its tokenizer_config.json.",
        )
    words = added_tokens(catalogue, identifier)
    if words is not None:
        paths, separator_ids = _added_paths(catalogue, tokenizer, words), np.empty(0, dtype=np.int64)
    else:
        paths = [np.asarray(ids, dtype=np.int64) for ids in literal_titles(tokenizer, catalogue.titles)]
        separator_ids = _separator_ids(tokenizer, separator)
    texts = None if words is None else ["".join(word) for word in words]
    titles = TitleTokens(paths=paths, separator=separator_ids, end=int(tokenizer.eos_token_id), texts=texts)
    _check(titles, catalogue)
    return titles


def _added_paths(
    catalogue: Catalogue, tokenizer: PreTrainedTokenizerBase, words: Sequence[Sequence[str]]
) -> list[np.ndarray]:
    vocabulary = tokenizer.get_vocab()
    missing = [item for item, word in enumerate(words) if not vocabulary.keys() >= set(word)]
    if missing:
        raise UserError(
            f"The tokenizer has no token for {len(missing)} items, such as item {catalogue.item_ids[missing[0]]!r}.",
            "Use the tokenizer that was trained with this dataset, or prepare the dataset with --identifier title.",
        )
    return [np.array([vocabulary[token] for token in word], dtype=np.int64) for word in words]


def _separator_ids(tokenizer: PreTrainedTokenizerBase, text: str | None) -> np.ndarray:
    if text is None and tokenizer.sep_token_id is not None:
        return np.array([tokenizer.sep_token_id], dtype=np.int64)
    text = NEWLINE if text is None else text
    ids = tokenizer.encode(text, add_special_tokens=False) if text else []
    # SentencePiece tokenizers put a word-start piece before a lone newline; inside text the newline stands alone.
    if len(ids) > 1 and tokenizer.decode(ids[-1:]) == text:
        ids = ids[-1:]
    if text and (not ids or tokenizer.unk_token_id in ids):
        raise UserError(
            f"The tokenizer has no token for the separator {text!r} between titles.",
            'Give it a `sep_token`, or set another separator in your template: {% set separator = "; " %}.',
        )
    return np.asarray(ids, dtype=np.int64)


def _check(titles: TitleTokens, catalogue: Catalogue) -> None:
    first: dict[tuple[int, ...], int] = {}
    separator = tuple(titles.separator.tolist())

    def name(item: int) -> str:
        return f"item {catalogue.item_ids[item]} ({catalogue.titles[item]!r})"

    for item, path in enumerate(titles.paths):
        tokens = tuple(path.tolist())
        if not tokens:
            raise UserError(f"The title of {name(item)} has no tokens.", "Give it a title.")
        if titles.end in tokens:
            raise UserError(
                f"The title of {name(item)} contains the end-of-sequence token.", "Rename it, or use another tokenizer."
            )
        if separator and separator[0] in tokens and len(_split(tokens, separator)) > 1:
            raise UserError(
                f"The title of {name(item)} contains the separator between titles.",
                "Rename it, or choose another separator.",
            )
        other = first.setdefault(tokens, item)
        if other != item:
            raise UserError(
                f"The tokenizer writes {name(item)} and {name(other)} with the same tokens {list(tokens)}.",
                "Rename one of them, use a tokenizer that tells them apart, or prepare with --identifier atomic.",
            )
    if separator:
        return
    ordered = sorted(first)  # a title that begins others sorts directly before one of them
    for shorter, longer in zip(ordered, ordered[1:], strict=False):
        if longer[: len(shorter)] == shorter:
            raise UserError(
                f"Without a separator, {catalogue.titles[first[shorter]]!r} cannot be told from the beginning of "
                f"{catalogue.titles[first[longer]]!r}.",
                "Use a separator between titles.",
            )


def _split(tokens: Sequence[int], separator: Sequence[int]) -> list[tuple[int, ...]]:
    """Split at every occurrence of a (non-empty) separator."""
    parts: list[tuple[int, ...]] = []
    start = at = 0
    while at + len(separator) <= len(tokens):
        if tuple(tokens[at : at + len(separator)]) == tuple(separator):
            parts.append(tuple(tokens[start:at]))
            start = at = at + len(separator)
        else:
            at += 1
    return [*parts, tuple(tokens[start:])]
