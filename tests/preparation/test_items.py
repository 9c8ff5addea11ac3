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
    assert cleaned.facts["titles_mended"] == 1


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
    assert cleaned.facts["dropped_items"] == 2
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
    told = {name: cleaned.facts[name] for name in ("collisions", "told_apart_by_suffix", "told_apart_by_id", "merged")}
    assert told == {"collisions": 2, "told_apart_by_suffix": 1, "told_apart_by_id": 1, "merged": 0}


def test_a_suffix_that_makes_a_new_collision_is_followed_by_the_id():
    cleaned = clean_items(frame(["A", "A", "A (1)"], ["1", "2", None]), "suffix", False)
    assert cleaned.frame["title"].n_unique() == 3


def test_merged_items_share_a_row_and_an_index():
    cleaned = clean_items(frame(["A", "B", "A"]), "merge", False)
    assert cleaned.frame["item_id"].to_list() == ["i0", "i1"]
    assert cleaned.aliases.rows() == [("i0", 0), ("i1", 1), ("i2", 0)]
    assert cleaned.facts["merged"] == 1


def test_collisions_are_refused_when_asked():
    with pytest.raises(UserError, match="'A' by the items 'i0' and 'i2'"):
        clean_items(frame(["A", "B", "A"]), "refuse", False)


def test_an_empty_catalogue_and_an_id_of_two_titles_are_refused():
    with pytest.raises(UserError, match="no items"):
        clean_items(frame(["x"]).filter(pl.lit(False)), "suffix", False)
    with pytest.raises(UserError, match="'a' is given twice"):
        clean_items(frame(["x", "y"], ids=["a", "a"]), "suffix", False)


INVISIBLE = [
    "\u200b",
    "\ufeff",
    "\u00ad\u2060",
    "\u3164",
    "\u2800",
    "\u00a0\u3000",
    "\u200e\ufe0f",
    "&#8203;",
    "&nbsp;",
]


@pytest.mark.parametrize("title", INVISIBLE)
def test_a_title_of_invisible_characters_is_refused_like_an_empty_one(title):
    with pytest.raises(UserError, match=r"row 2 \(id 'i1'\).*(is empty|has no visible character)"):
        clean_items(frame(["fine", title]), "suffix", False)
    assert clean_items(frame(["fine", title]), "suffix", True).facts["dropped_items"] == 1


def test_invisible_characters_beside_visible_ones_stay():
    titles = [
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "family \U0001f468\u200d\U0001f469",
    ]  # they mean something here
    assert clean_items(frame(titles), "refuse", False).frame["title"].to_list() == titles


def test_titles_are_composed_so_that_two_forms_of_one_title_collide():
    cleaned = clean_items(frame(["Caf\u00e9", "Cafe\u0301"]), "merge", False)
    assert cleaned.frame["title"].to_list() == ["Caf\u00e9"]
    assert cleaned.facts["lookalike_titles"]["count"] == 0  # they are the same title, not two that look alike


@pytest.mark.parametrize("other", ["heat", "He\u00adat", "\u200bHeat", "\uff28eat", "H\u200deat", "Heat\u3164"])
def test_titles_that_look_alike_collide_and_are_told(other):
    cleaned = clean_items(frame(["Heat", other, "Alien"], ["1995", "1986", "1979"]), "suffix", False)
    assert cleaned.frame["title"].to_list() == ["Heat (1995)", f"{other} (1986)", "Alien"]
    assert cleaned.facts["lookalike_titles"] == {"count": 1, "example": ["Heat", other]}
    assert (cleaned.facts["collisions"], cleaned.facts["told_apart_by_suffix"]) == (1, 1)
    assert clean_items(frame(["Heat", other]), "merge", False).aliases.rows() == [("i0", 0), ("i1", 0)]
    with pytest.raises(UserError, match="'i0' and 'i1' .*look alike"):
        clean_items(frame(["Heat", other]), "refuse", False)


def test_titles_that_differ_in_what_one_sees_do_not_collide():
    titles = ["Heat", "Heat 2", "H\u00e9at", "Heat!", "He at"]
    assert clean_items(frame(titles), "refuse", False).facts["collisions"] == 0


def test_ids_that_look_alike_are_told_and_stay_apart():
    cleaned = clean_items(frame(["A", "B", "C", "D"], ids=["i1", "I1", "i1 ", "i2"]), "refuse", False)
    assert cleaned.frame.height == 4
    assert cleaned.facts["lookalike_item_ids"] == {"count": 3, "example": ["I1", "i1"], "by_case": 1}
