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
        ("b", "B", ["Drama"], "about b", None),
        ("a", "A", ["Action", "RPG"], "about a", "1999"),
    ]
    assert merged["row"].to_list() == [1, 2]
    assert facts["items_differing"] == {}


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
    assert facts["items_differing"]["title"] == {"items": 1, "share": 1 / 3, "mentions": 2, "example": example}
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


def test_items_stand_in_the_order_of_their_first_mention():
    rows = [(f"i{n * 7919 % 5000}", f"T{n * 7919 % 5000}", None, None, None) for n in range(20_000)]
    merged, _ = merge(*rows)
    assert merged["item_id"].to_list() == list(dict.fromkeys(row[0] for row in rows))
