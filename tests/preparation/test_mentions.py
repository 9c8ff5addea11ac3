import polars as pl
import pytest

from recalign.errors import UserError
from recalign.preparation.mentions import one_row_each

COLUMNS = ("item_id", "title", "genres", "text", "suffix")


def merge(*rows, per_event=True, drop_invalid=False):
    frame = pl.LazyFrame(rows, schema=dict.fromkeys(COLUMNS, pl.String), orient="row")
    return one_row_each(frame, per_event=per_event, drop_invalid=drop_invalid, genre_separator=None)


def test_each_column_takes_the_first_value_that_is_visible():
    merged, facts = merge(
        ("b", "B", "", None, None),
        ("a", None, "N/A", "", None),
        ("a", "\u200b", None, "  ", "1999"),
        ("b", "B", "Drama", "about b", None),
        ("a", "A", "Action|RPG", "about a", None),
    )
    assert merged.drop("row").rows() == [
        ("a", "A", ["Action", "RPG"], "about a", "1999"),
        ("b", "B", ["Drama"], "about b", None),
    ]
    assert merged["row"].to_list() == [2, 1]
    assert facts["items_differing"] == {}
    assert facts["items_completed"] == {"title": 1, "genres": 2, "text": 2, "suffix": 1}


def test_a_title_of_which_nothing_is_ever_visible_stays_as_it_is():
    merged, _ = merge(("a", "\u200b", None, None, None), ("a", "", None, "x", None))
    assert merged["title"].to_list() == ["\u200b"]


def test_values_that_differ_within_an_item_are_told_by_column():
    _, facts = merge(
        ("a", "Loved it", "g", "t", None),
        ("b", "B", "x|y", "t", None),
        ("a", "Hated it", "g", "u", None),
        ("b", "b ", "y|x", "t", None),
        ("a", "Hated it", "g", "u", None),
        ("c", "C", "", "", None),
    )
    example = {"item_id": "a", "values": [["Loved it", 1], ["Hated it", 3]]}
    assert facts["items_differing"]["title"] == {
        "items": 1,
        "share": 1 / 3,
        "mentions": 2,
        "example": example,
        "counts": "the most frequent",
    }
    assert set(facts["items_differing"]) == {"title", "text"}  # b's forms look alike, and its genres are the same
    assert facts["item_rows_repeated"] == 0


def test_equal_rows_of_a_table_of_items_pass_and_are_counted():
    merged, facts = merge(*[("a", "A", "g", "t", None)] * 3, ("b", "B", None, None, None), per_event=False)
    assert (merged.height, facts["item_rows_repeated"]) == (2, 2)


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("title", ("A", "g", "t", "1"), ("X", "g", "t", "1")),
        ("genres", ("A", "g", "t", "1"), ("A", "h", "t", "1")),
        ("text", ("A", "g", "t", "1"), ("A", "g", "u", "1")),
        ("suffix", ("A", "g", "t", "1"), ("A", "g", "t", "2")),
    ],
)
def test_rows_of_a_table_of_items_that_contradict_each_other_are_named(name, one, other):
    rows = [("z", "Z", None, None, None), ("a", *one), ("y", "Y", None, None, None), ("a", *other)]
    with pytest.raises(UserError) as error:
        merge(*rows, per_event=False)
    assert f"'a' is given twice, and its {name} differs" in error.value.what
    assert "item row 2" in error.value.what and "row 4" in error.value.what
    assert "--drop-invalid" in error.value.hint
    merged, facts = merge(*rows, per_event=False, drop_invalid=True)
    assert merged.filter(item_id="a").select("title", "text", "suffix").row(0) == (one[0], one[2], one[3])
    assert facts["items_differing"][name]["items"] == 1


def test_a_row_that_completes_another_does_not_contradict_it():
    merged, facts = merge(("a", "", "g", None, None), ("a", "A", "", "t", None), per_event=False)
    assert merged.drop("row").rows() == [("a", "A", ["g"], "t", None)]
    assert facts["item_rows_repeated"] == 1


def test_lists_of_genres_and_a_frame_without_suffix():
    frame = pl.LazyFrame(
        {"item_id": ["a", "a"], "title": ["A", "A"], "genres": [[], ["g", "h"]], "text": [None, "t"]},
        schema_overrides={"genres": pl.List(pl.String), "text": pl.String},
    )
    merged, _ = one_row_each(frame, per_event=True, drop_invalid=False, genre_separator=None)
    assert merged.drop("row").rows() == [("a", "A", ["g", "h"], "t", None)]


@pytest.mark.parametrize(
    ("titles", "counts"),
    [(["Loved it", "Heat", "Heat", "Meh"], "Heat"), (["Heat 2", "Heat", "heat", "Heat"], "Heat"), (["b", "a"], "a")],
)
def test_the_most_frequent_value_of_an_item_counts_whatever_the_order_of_the_rows(titles, counts):
    for order in (titles, titles[::-1]):
        merged, _ = merge(*[("x", title, "g", None, None) for title in order], ("y", "Y", None, None, None))
        assert merged["title"].to_list() == [counts, "Y"]


def test_of_lists_of_genres_the_most_frequent_counts():
    frame = pl.LazyFrame({"item_id": list("aaab"), "genres": [["g"], ["h", "i"], ["h", "i"], ["g"]]})
    merged, _ = one_row_each(
        frame.with_columns(title="item_id"), per_event=True, drop_invalid=False, genre_separator=None
    )
    assert merged["genres"].to_list() == [["h", "i"], ["g"]]


@pytest.mark.parametrize(
    ("same_ids", "ids", "joined"),
    [
        ("exact", ["I1", "i1", "i1 ", "i2"], 0),
        ("blanks", ["I1", "i1", "i2"], 1),
        ("case", ["I1", "i2"], 2),
    ],
)
def test_ids_that_look_alike_are_one_where_asked(same_ids, ids, joined):
    frame = pl.LazyFrame({"item_id": ["i2", "i1 ", "I1", "i1"], "title": ["B", "A", "A", "A"]})
    merged, facts = one_row_each(frame, per_event=True, drop_invalid=False, genre_separator=None, same_ids=same_ids)
    assert (merged["item_id"].to_list(), facts["item_ids_joined"]) == (ids, joined)


def test_items_of_a_table_stand_in_its_order_and_those_of_interactions_in_that_of_their_ids():
    rows = [(f"i{n * 7919 % 5000}", f"T{n * 7919 % 5000}", None, None, None) for n in range(20_000)]
    ids = list(dict.fromkeys(row[0] for row in rows))
    assert merge(*rows, per_event=False)[0]["item_id"].to_list() == ids
    assert merge(*rows)[0]["item_id"].to_list() == sorted(ids)
