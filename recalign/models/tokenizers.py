"""Tokenizers: one trained on a catalogue for from-scratch models; added tokens for semantic and atomic identifiers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from recalign.data.catalogue import Catalogue
from recalign.text.item_tokens import added_tokens

SPECIAL = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "sep_token": "<sep>", "unk_token": "<unk>"}

# A word is a parenthesised word such as (1995), or letters and digits with what stands inside words, or one other
# character, each with the space before it (written ▁), so that the text can be put together again.
_WORD = r"▁?\([^()▁]*\)|▁?[\w&.'’\-]+|▁?[^\w▁]|▁"


def train_tokenizer(
    texts: Iterable[str], kind: Literal["word", "bpe"] = "word", vocabulary: int | None = None
) -> PreTrainedTokenizerFast:
    """Train a tokenizer; the same texts give the same one.

    Args:
        texts: what it has to write: the catalogue's titles (and the words of a prompt template).
        kind: `word` (every word is a token) or `bpe` (byte-level, so that any text can be written).
        vocabulary: maximum number of tokens; None: every word, or 4,000 of BPE. Rarer words become `<unk>`.

    Returns:
        A fast tokenizer with bos, eos, pad, sep and unk tokens.
    """
    if kind == "word":
        tokenizer = Tokenizer(models.WordLevel({SPECIAL["unk_token"]: 0}, unk_token=SPECIAL["unk_token"]))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Metaspace(prepend_scheme="always", split=False),
                pre_tokenizers.Split(Regex(_WORD), behavior="isolated"),
            ]
        )
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
        trainer: Any = trainers.WordLevelTrainer(
            vocab_size=vocabulary or 10**9, special_tokens=list(SPECIAL.values()), show_progress=False
        )
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary or 4000,
            special_tokens=list(SPECIAL.values()),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL)


def add_item_tokens(
    tokenizer: PreTrainedTokenizerBase, catalogue: Catalogue, identifier: str = "atomic"
) -> Sequence[int]:
    """Add the tokens that write items: one per item, in the catalogue's order, or the codes of every level.

    Args:
        tokenizer: changed in place.
        catalogue: the items.
        identifier: `title` adds nothing.

    Returns:
        The ids of the tokens that were new.
    """
    words = added_tokens(catalogue, identifier) or []
    if identifier == "semantic":  # by level, then number
        words = [sorted({token for word in words for token in word}, key=_level_and_number)]
    known = tokenizer.get_vocab()
    new = [token for word in words for token in word if token not in known]
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in new])
    return tokenizer.convert_tokens_to_ids(new)


def _level_and_number(token: str) -> tuple[int, ...]:
    """Sort key of `<s1_23>`: (1, 23)."""
    return tuple(map(int, token.strip("<s>").split("_")))
