import polars as pl
import pytest

from recalign.errors import UserError
from recalign.preparation.items import clean_items


def frame(titles, suffix=None, ids=None):
    data = {
        "item_id": ids or [f"i{n}" for n in range(len(titles))],
        "title": titles,
        "genres": [["g"]] * len(titles),
        "text": [""] * len(titles),
    }
    return pl.LazyFrame(data | ({"suffix": suffix} if suffix else {}))


def test_entities_are_unescaped_spaces_stripped_and_line_breaks_become_spaces():
    cleaned = clean_items(frame(["Salt &amp; Pepper", "  Tom\n  Jerry ", "Café &#39;Noir&#39;"]), "refuse", False)
    assert cleaned.frame["title"].to_list() == ["Salt & Pepper", "Tom Jerry", "Café 'Noir'"]
    assert cleaned.mended == 1


@pytest.mark.parametrize(
    ("title", "problem"), [("", "is empty"), ("  ", "is empty"), ("a\x00b", "control"), ("\x1b[31m", "control")]
)
def test_unusable_titles_are_refused_with_the_row_number(title, problem):
    with pytest.raises(UserError) as error:
        clean_items(frame(["fine", title]), "suffix", False)
    assert "row 2" in error.value.what and "'i1'" in error.value.what and problem in error.value.what
    assert "--drop-invalid" in error.value.hint


def test_unusable_titles_are_left_out_when_asked():
    cleaned = clean_items(frame(["fine", "", "a\x07"]), "suffix", True)
    assert cleaned.frame["title"].to_list() == ["fine"]
    assert cleaned.aliases.rows() == [("i0", 0)]
    assert cleaned.dropped == 2
    with pytest.raises(UserError, match="All 2 titles"):
        clean_items(frame(["", "\x00"]), "suffix", True)


def test_collisions_take_the_suffix_then_the_id():
    titles, years = (
        ["Sabrina", "Sabrina", "Chasing Amy", "Chasing Amy", "Heat"],
        ["1954", "1995", "1997", "1997", "1995"],
    )
    cleaned = clean_items(frame(titles, years), "suffix", False)
    assert cleaned.frame["title"].to_list() == [
        "Sabrina (1954)",
        "Sabrina (1995)",
        "Chasing Amy (1997) [i2]",
        "Chasing Amy (1997) [i3]",
        "Heat",
    ]
    assert cleaned.collisions == {"collisions": 2, "told_apart_by_suffix": 1, "told_apart_by_id": 1, "merged": 0}


def test_a_suffix_that_makes_a_new_collision_is_followed_by_the_id():
    cleaned = clean_items(frame(["A", "A", "A (1)"], ["1", "2", None]), "suffix", False)
    assert cleaned.frame["title"].n_unique() == 3


def test_merged_items_share_a_row_and_an_index():
    cleaned = clean_items(frame(["A", "B", "A"]), "merge", False)
    assert cleaned.frame["item_id"].to_list() == ["i0", "i1"]
    assert cleaned.aliases.rows() == [("i0", 0), ("i1", 1), ("i2", 0)]
    assert cleaned.collisions["merged"] == 1


def test_collisions_are_refused_when_asked():
    with pytest.raises(UserError, match="'A' by the items 'i0' and 'i2'"):
        clean_items(frame(["A", "B", "A"]), "refuse", False)


def test_an_empty_catalogue_and_a_repeated_id_are_refused():
    with pytest.raises(UserError, match="no items"):
        clean_items(frame(["x"]).filter(pl.lit(False)), "suffix", False)
    with pytest.raises(UserError, match="'a' is given twice"):
        clean_items(frame(["x", "y"], ids=["a", "a"]), "suffix", False)
