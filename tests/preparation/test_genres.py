import ast
import json
from collections import Counter

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recalign.preparation.genres import PLACEHOLDERS, find_separator, read_genres

NAMES = st.lists(st.text("abcdefgh", min_size=1, max_size=4).map("g{}".format), max_size=4, unique=True)


def read(*cells, separator=None):
    genres, facts = read_genres(pl.Series(cells), separator)
    return genres.to_list(), facts


@pytest.mark.parametrize(
    "cell",
    [
        "['Action', 'RPG']",
        '["Action", "RPG"]',
        "('Action', 'RPG')",
        "'Action', 'RPG'",
        '[["Action"], ["RPG", "Action"]]',
        "[{'id': 28, 'name': 'Action'}, {'id': 1, 'name': 'RPG'}]",
        '{"Action": 12, "RPG": 3}',
        "['Action', None, '', 'RPG', 'N/A']",
        "[Action, RPG]",
        "Action, RPG",
        " Action ,RPG, ",
        "Action|RPG",
        "Action;RPG",
        "Action / RPG",
        "Action\tRPG",
    ],
)
def test_two_genres_in_whatever_form(cell):
    assert read(cell, cell)[0] == [["Action", "RPG"]] * 2


@pytest.mark.parametrize("write", [json.dumps, repr])
@given(lists=st.lists(NAMES, min_size=1, max_size=6))
def test_lists_written_as_text_are_what_their_own_parsers_read(write, lists):
    texts = [write(names) for names in lists]
    expected = [(json.loads if write is json.dumps else ast.literal_eval)(text) for text in texts]
    assert read(*texts)[0] == expected


@given(lists=st.lists(NAMES, min_size=1, max_size=6), mark=st.sampled_from(["|", ";", ",", "/", "\t"]))
def test_whatever_separates_all_cells_is_found(lists, mark):
    genres, facts = read(*(mark.join(names) for names in lists))
    assert genres == lists
    assert facts["genre_separator"] == (mark if any(len(names) > 1 for names in lists) else None)


def test_no_cell_is_evaluated():
    bomb = "[__import__('os').abort()]"
    assert read(bomb)[0] == [["__import__('os').abort()"]]


def test_columns_of_lists_of_texts_lists_and_objects():
    assert read(["Action", " RPG "], None, [])[0] == [["Action", "RPG"], [], []]
    assert read([["Action"], ["RPG"]])[0] == [["Action", "RPG"]]
    assert read([{"id": 1, "name": "Action"}])[0] == [["Action"]]
    assert read(None, None)[0] == [[], []]


def test_a_genre_with_a_comma_in_a_list_is_one():
    assert read("['Toys, Games', 'Baby']", "x")[0] == [["Toys, Games", "Baby"], ["x"]]
    assert read(["Toys, Games"], ["Baby"])[0] == [["Toys, Games"], ["Baby"]]


@pytest.mark.parametrize("word", sorted(PLACEHOLDERS))
def test_a_placeholder_is_no_genre_in_any_case_alone_or_among_others(word):
    genres, facts = read(word, word.upper(), f" {word} ", f"Drama|{word}", "Drama")
    assert genres == [[], [], [], ["Drama"], ["Drama"]]
    assert facts["genre_placeholders"] == 4


def test_empty_cells_are_no_placeholders():
    genres, facts = read("", "  ", "\u200b", None, "Drama")
    assert (genres, facts["genre_placeholders"]) == ([[], [], [], [], ["Drama"]], 0)


def test_forms_of_one_genre_become_the_most_frequent_one_and_are_told():
    genres, facts = read("sci-fi|Drama", "Sci-Fi", "Sci-Fi | SCI-FI", "drama", "Cafe\u0301|Caf\u00e9")
    assert genres == [["Sci-Fi", "Drama"], ["Sci-Fi"], ["Sci-Fi"], ["Drama"], ["Caf\u00e9"]]
    assert facts["genre_forms"]["count"] == 3
    assert facts["genre_forms"]["example"][1] == "Sci-Fi"


def test_the_separator_is_found_over_the_whole_column_not_its_head():
    cells = ["Drama"] * 3000 + ["Action|RPG", "Sci-Fi/Fantasy|Drama"]
    genres, facts = read(*cells)
    assert genres[-2:] == [["Action", "RPG"], ["Sci-Fi/Fantasy", "Drama"]]
    assert (facts["genre_separator"], facts["genre_separator_found"]) == ("|", True)


def test_a_strong_separator_beats_a_weak_one_unless_it_is_an_accident():
    assert find_separator(Counter({"a,b|c": 5, "a,b": 40})) == "|"
    assert find_separator(Counter({"a|b": 1, "a,b": 100})) == ","
    assert find_separator(Counter({"a/b": 20, "a,b": 3})) == ","
    assert find_separator(Counter({"n/a": 20, "a": 3})) is None
    assert find_separator(Counter()) is None


def test_a_separator_that_is_given_rules():
    genres, facts = read("Action, RPG", "Drama", separator="|")
    assert genres == [["Action, RPG"], ["Drama"]]
    assert (facts["genre_separator"], facts["genre_separator_found"]) == ("|", False)
    assert facts["genres_with_separators"] == {"count": 1, "example": ["Action, RPG"]}
    assert read("Film-Noir Drama", separator=" ")[0] == [["Film-Noir", "Drama"]]


def test_brackets_without_end_and_broken_literals_are_text():
    assert read("['Action', 'RPG'", "(Action)", "'Til", "[" * 5000)[0][1:3] == [["(Action)"], ["'Til"]]
