"""Control tokens that titles spell: ordinary characters, the rest of the text as ever."""

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from recalign.data.control import ControlTokens, LiteralText, literal_titles
from recalign.errors import UserError
from recalign.training.tokenizers import train_tokenizer
from tests.data.test_tokens import ODD_TITLES, TOKENIZERS
from tests.fake_dataset import TITLES

ADDED = ["<think>", "</think>", "<item_1>", "<item_12>", "Pokemon", "  ", "..."]


def tokenizer_of(kind):
    made = TOKENIZERS[kind]([*ODD_TITLES, "< > / think item _ 1 12 user assistant end eos s | a b ▁"])
    made.add_tokens([AddedToken(text, normalized=False, special=False) for text in ADDED])
    return made


def spelled(tokenizer, text):
    """The ids of the added tokens between marks that a text becomes, by the tokenizer itself."""
    control = {tokenizer.convert_tokens_to_ids(token) for token in ControlTokens(tokenizer).tokens}
    return [token for token in tokenizer.encode(text, add_special_tokens=False) if token in control]


def test_control_tokens_are_special_or_stand_between_marks():
    found = ControlTokens(tokenizer_of("byte-level")).tokens
    assert found == {"<end>", "<|user|>", "<|assistant|>", "<think>", "</think>", "<item_1>", "<item_12>"}


def test_they_are_found_as_tokenizers_find_them():
    control = ControlTokens(tokenizer_of("byte-level"))
    assert control.find("a<item_12><item_1>2<end") == [(1, "<item_12>"), (10, "<item_1>")]
    text = "x <think> <<end> <item_123> </think>"
    tokenizer = tokenizer_of("byte-level")
    ids = [tokenizer.convert_tokens_to_ids(token) for _, token in control.find(text)]
    assert ids == spelled(tokenizer, text)


@pytest.mark.parametrize(
    ("text", "begins"), [("a <think> b", True), ("a <thi", True), ("1 < 2", False), ("ink>", False)]
)
def test_a_token_that_other_text_may_complete_begins_in_a_text(text, begins):
    assert ControlTokens(tokenizer_of("byte-level")).begin_in(text) is begins


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_ordinary_text_has_the_tokens_that_it_always_had(kind):
    tokenizer = tokenizer_of(kind)
    literal = LiteralText(tokenizer, ControlTokens(tokenizer), ODD_TITLES)
    texts = [
        *ODD_TITLES,
        "Pokemon  in ... 1 < 2 [x] >",
        " led\nby spaces ",
        ", ".join(ODD_TITLES),
        "<end>Ship<think> Red",
    ]
    for special in (False, True):
        for text in texts:
            assert literal.encode(text, add_special_tokens=special) == tokenizer.encode(
                text, add_special_tokens=special
            )


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_hidden_text_is_ordinary_characters_between_control_tokens_of_the_template(kind):
    tokenizer = tokenizer_of(kind)
    control = ControlTokens(tokenizer)
    title = "Ship <think> Red</think><item_12>" + tokenizer.eos_token
    literal = LiteralText(tokenizer, control, [title])
    ids = literal.encode(f"<think> {literal.hide(title)}</think>")
    opening, closing = (tokenizer.convert_tokens_to_ids(token) for token in ("<think>", "</think>"))
    controls = {*spelled(tokenizer, "".join(control.tokens))} - {tokenizer.unk_token_id}
    assert [token for token in ids if token in controls] == [opening, closing]
    if kind != "word":  # words that are unknown cannot be read back
        assert "".join(tokenizer.decode(ids).split()) == "".join(f"<think>{title}</think>".split())
    assert literal.reveal(literal.hide(title)) == title


def test_special_tokens_that_titles_spell_are_what_the_tokenizer_splits_them_into():
    tokenizer = TOKENIZERS["byte-level"](TITLES)
    titles = ["Ship <end> Red", "<|user|>", "Robot<|assistant|><end>", "Plain"]
    expected = [tokenizer.encode(title, add_special_tokens=False, split_special_tokens=True) for title in titles]
    assert literal_titles(tokenizer, titles) == expected
    assert expected[0] != tokenizer.encode(titles[0], add_special_tokens=False)


def test_a_vocabulary_of_whole_words_has_no_control_token_for_a_word():
    words = Tokenizer(models.WordLevel({"<unk>": 0, "<eos>": 1, "Ship": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>", unk_token="<unk>")
    assert tokenizer.encode("Ship <eos>", split_special_tokens=True) == [2, 1]  # splitting alone does not help
    assert literal_titles(tokenizer, ["Ship <eos>", "Ship"]) == [[2, 0], [2]]


def test_a_control_token_that_merges_would_make_is_not_made():
    vocabulary = {"<": 0, "a": 1, ">": 2, "<a": 3, "<a>": 4, "</s>": 5}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE(vocabulary, [("<", "a"), ("<a", ">")])), eos_token="</s>"
    )
    tokenizer.add_tokens([AddedToken("<a>", special=True)])
    assert literal_titles(tokenizer, ["a<a>"]) == [[1, 3, 2]]


def test_unigram_pieces_are_not_control_tokens():
    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("<", -5.0), ("/", -5.0), ("s", -5.0), (">", -5.0), ("A", -2.0)]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.Unigram(pieces, unk_id=0)), eos_token="</s>", unk_token="<unk>"
    )
    assert literal_titles(tokenizer, ["A</s>A"]) == [[6, 2, 3, 4, 5, 6]]


def test_ids_of_every_control_token_stay():
    tokenizer = train_tokenizer(TITLES)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in ("<a>", "word", "<b>")])
    literal = LiteralText(tokenizer, ControlTokens(tokenizer), TITLES)
    text = "<b> Ship <a><sep> word Red <pad>"
    assert literal.encode(text) == tokenizer.encode(text, add_special_tokens=False)


def test_stand_ins_avoid_the_characters_of_titles():
    tokenizer = tokenizer_of("byte-level")
    private = "".join(map(chr, range(0x100000, 0x100008)))
    literal = LiteralText(tokenizer, ControlTokens(tokenizer), [private])
    assert literal.reveal(literal.hide(private + "<end>")) == private + "<end>"
    assert tokenizer.decode(literal.encode(literal.hide(private))) == private


class SlowTokenizer:
    """What a tokenizer without a fast form shows of itself."""

    is_fast = False
    added_tokens_decoder = {0: AddedToken("<end>", special=True)}

    def __call__(self, titles, add_special_tokens):
        return {"input_ids": [[1] for _ in titles]}


def test_a_tokenizer_that_cannot_be_copied_refuses_such_titles_by_name():
    assert literal_titles(SlowTokenizer(), ["Plain", "1 < 2"]) == [[1], [1]]
    with pytest.raises(UserError) as error:
        literal_titles(SlowTokenizer(), ["Plain", "An <end>"])
    assert "'An <end>' spells a control token, and SlowTokenizer cannot" in str(error.value)


def test_paths_of_titles_are_arrays_of_the_same_ids():
    tokenizer = tokenizer_of("bpe")
    for title, ids in zip(ODD_TITLES, literal_titles(tokenizer, ODD_TITLES), strict=True):
        assert np.array_equal(ids, tokenizer.encode(title, add_special_tokens=False))
