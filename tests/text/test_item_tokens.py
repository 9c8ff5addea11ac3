"""Token paths, responses and reading them back."""

import numpy as np
import pytest

from recalign.data.catalogue import Catalogue
from recalign.errors import UserError
from recalign.models.tokenizers import add_item_tokens, train_tokenizer
from recalign.text.item_tokens import INVALID, TitleTokens, item_token, title_tokens
from recalign.text.prompts import load_template
from recalign.text.trie import TitleTrie
from tests import fake_models
from tests.fake_dataset import TITLES

SEP, END = 90, 99


def catalogue_of(titles, ids=None):
    ids = ids or [str(index) for index in range(len(titles))]
    return Catalogue(ids, list(titles), [()] * len(titles), [""] * len(titles), np.ones(len(titles), dtype=np.int64))


def tokens_of(paths, separator=(SEP,)):
    return TitleTokens([np.array(path) for path in paths], np.array(separator, dtype=np.int64), END)


def test_a_response_is_titles_separators_and_one_end_token():
    titles = tokens_of([[1, 2], [3], [4, 5, 6]])
    assert titles.response([2, 0, 1]).tolist() == [4, 5, 6, SEP, 1, 2, SEP, 3, END]
    assert titles.response([1]).tolist() == [3, END]
    assert titles.response([]).tolist() == [END]


def test_join_closes_with_a_separator_when_asked():
    titles = tokens_of([[1, 2], [3]])
    assert titles.join([0, 1], close=True).tolist() == [1, 2, SEP, 3, SEP]
    assert titles.join([], close=True).tolist() == []


def test_parse_reads_a_response_back():
    titles = tokens_of([[1, 2], [3], [4, 5, 6]])
    assert titles.parse(titles.response([2, 0, 1])) == [2, 0, 1]


def test_parse_marks_what_is_no_title_and_stops_at_the_end_token():
    titles = tokens_of([[1, 2], [3]])
    assert titles.parse([1, SEP, 3, SEP, SEP, 7, 7, END, 3]) == [INVALID, 1, INVALID, INVALID]
    assert titles.parse([END, 3]) == []


def test_parse_without_separator_reads_identifiers_end_to_end():
    titles = tokens_of([[1], [2], [3]], separator=())
    assert titles.parse([3, 8, 1, END]) == [2, INVALID, 0]
    codes = tokens_of([[1, 2], [1, 3], [4, 2, 1]], separator=())
    assert codes.parse([4, 2, 1, 1, 3, 9, 9, 1, 2]) == [2, 1, INVALID, 0]


def test_parse_with_a_separator_of_two_tokens():
    titles = tokens_of([[1, 7], [3]], separator=(7, 8))
    assert titles.parse(titles.response([0, 1, 0])) == [0, 1, 0]


def test_longest_response_counts_the_longest_titles_separators_and_the_end():
    titles = tokens_of([[1, 2], [3], [4, 5, 6]])
    assert titles.longest_response(2) == 3 + 2 + 1 + 1
    assert titles.longest_response(9) == 3 + 2 + 1 + 2 + 1


def test_fingerprint_changes_with_paths_separator_and_end():
    base = tokens_of([[1, 2], [3]])
    others = [
        tokens_of([[1], [2, 3]]),
        tokens_of([[1, 2], [3]], (SEP, SEP)),
        TitleTokens(base.paths, base.separator, 98),
    ]
    assert base.fingerprint == tokens_of([[1, 2], [3]]).fingerprint
    assert len({base.fingerprint, *(other.fingerprint for other in others)}) == 4


TOKENIZERS = {
    "word": lambda texts: train_tokenizer(texts, "word"),
    "bpe": lambda texts: train_tokenizer(texts, "bpe"),
    "byte-level": lambda texts: fake_models.byte_level_tokenizer(texts, chat=True),
    "sentencepiece": fake_models.sentencepiece_tokenizer,
}
ODD_TITLES = [*TITLES, "Toy Story (1995)", "Monty Python's Life, or: not", "A  B", "Ünïcode – Straße", "Ship"]


@pytest.mark.parametrize("template", ["compact", "alpaca", "chat"])
@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("identifier", ["title", "atomic"])
def test_response_tokens_are_the_trie_paths_for_every_template_and_tokenizer(identifier, kind, template):
    catalogue = catalogue_of(ODD_TITLES)
    tokenizer = TOKENIZERS[kind](ODD_TITLES)
    add_item_tokens(tokenizer, catalogue, identifier)
    titles = title_tokens(catalogue, tokenizer, identifier, load_template(template).separator)
    trie = TitleTrie.build(titles)
    items = [24, 0, 22, 7]
    response = titles.response(items).tolist()
    walked, at = [], 0
    for item in items:  # follow the response through the trie
        node = 0
        while int(trie.item_at[node]) != item:
            edges = range(int(trie.child_start[node]), int(trie.child_start[node + 1]))
            node = next(edge + 1 for edge in edges if int(trie.child_token[edge]) == response[at])
            at += 1
        walked.append(int(trie.item_at[node]))
        at += len(titles.separator)
    assert walked == items
    assert titles.parse(response) == items
    if identifier == "title":
        assert [tokenizer.decode(titles.paths[item]).strip() for item in items] == [ODD_TITLES[item] for item in items]


def test_separator_is_the_tokenizers_own_or_one_newline_token():
    catalogue = catalogue_of(TITLES)
    own = train_tokenizer(TITLES)
    assert title_tokens(catalogue, own, "title").separator.tolist() == [own.sep_token_id]
    for make in (fake_models.byte_level_tokenizer, fake_models.sentencepiece_tokenizer):
        tokenizer = make(TITLES)
        separator = title_tokens(catalogue, tokenizer, "title").separator
        assert len(separator) == 1 and tokenizer.decode(separator) == "\n"


def test_a_template_may_set_the_separator():
    tokenizer = fake_models.byte_level_tokenizer(TITLES)
    separator = title_tokens(catalogue_of(TITLES), tokenizer, "title", "; ").separator
    assert tokenizer.decode(separator) == "; "


def test_atomic_identifiers_are_one_added_token_without_separator():
    catalogue = catalogue_of(["A", "B", "C"], ["7", "x y", "é"])
    tokenizer = train_tokenizer([])
    new = add_item_tokens(tokenizer, catalogue, "atomic")
    titles = title_tokens(catalogue, tokenizer, "atomic")
    assert [path.tolist() for path in titles.paths] == [[token] for token in new]
    assert tokenizer.convert_ids_to_tokens(new) == [item_token(item_id) for item_id in ("7", "x y", "é")]
    assert len(titles.separator) == 0
    assert list(add_item_tokens(tokenizer, catalogue, "atomic")) == []


def refused(catalogue, tokenizer, identifier="title", separator=None):
    with pytest.raises(UserError) as error:
        title_tokens(catalogue, tokenizer, identifier, separator)
    return str(error.value)


def test_titles_with_the_same_tokens_are_refused_by_name():
    catalogue = catalogue_of(["New One", "Known", "New Two"], ["a", "b", "c"])
    text = refused(catalogue, train_tokenizer(["Known", "New"]))  # One and Two are <unk>
    assert "item c ('New Two')" in text and "item a ('New One')" in text


@pytest.mark.parametrize("token", ["<eos>", "<sep>", "<pad>"])
def test_a_title_that_spells_a_control_token_is_ordinary_characters(token):
    written = ["A", f"B {token} C", "B"]
    tokenizer = train_tokenizer(written)
    titles = title_tokens(catalogue_of(written), tokenizer, "title")
    assert tokenizer.decode(titles.paths[1]) == f"B {token} C"
    assert not {*titles.paths[1].tolist()} & {*tokenizer.all_special_ids}
    assert titles.parse(titles.response([1, 0, 2])) == [1, 0, 2]


def test_a_title_with_the_end_token_inside_is_refused():
    tokenizer = train_tokenizer(["A", "B C"])
    tokenizer.eos_token = "▁C"  # a word of the vocabulary itself
    assert "end-of-sequence" in refused(catalogue_of(["A", "B C"]), tokenizer)


def test_a_title_with_the_separator_inside_is_refused():
    assert "separator" in refused(catalogue_of(["A", "B\nC"]), fake_models.byte_level_tokenizer(["A", "B C"]))


def test_a_title_without_tokens_is_refused():
    assert "no tokens" in refused(catalogue_of(["A", ""]), train_tokenizer(["A"]))


def test_a_tokenizer_without_end_token_is_refused():
    tokenizer = train_tokenizer(["A"])
    tokenizer.eos_token = None
    assert "eos_token" in refused(catalogue_of(["A"]), tokenizer)


def test_a_tokenizer_without_any_separator_is_refused():
    tokenizer = train_tokenizer(["A", "B"])
    tokenizer.sep_token = None
    text = refused(catalogue_of(["A", "B"]), tokenizer)
    assert "sep_token" in text and "separator" in text


def test_an_empty_separator_with_a_title_that_begins_another_is_refused():
    tokenizer = fake_models.byte_level_tokenizer(["Ship", "Ship Red"])
    text = refused(catalogue_of(["Ship Red", "Robot", "Ship"]), tokenizer, separator="")
    assert "'Ship'" in text and "'Ship Red'" in text


def test_atomic_identifiers_that_the_tokenizer_lacks_are_refused():
    assert "item '0'" in refused(catalogue_of(["A"]), train_tokenizer(["A"]), "atomic")


def test_a_word_tokenizer_is_the_same_however_often_it_is_trained():
    first, second = (train_tokenizer(ODD_TITLES).get_vocab() for _ in range(2))
    assert first == second
    assert train_tokenizer(ODD_TITLES, "bpe").get_vocab() == train_tokenizer(ODD_TITLES, "bpe").get_vocab()
