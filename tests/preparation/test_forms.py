import unicodedata

import polars as pl
import pytest

from recalign.preparation.forms import appearance, lookalikes, one_id, visible


def of(expression, *texts):
    return pl.DataFrame({"text": texts}, schema={"text": pl.String}).select(expression(pl.col("text"))).to_series()


def test_no_format_character_and_no_blank_is_visible():
    hidden = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) in ("Cf", "Zs", "Zl", "Zp")]
    assert not of(visible, *hidden).any()
    assert not of(visible, "", "".join(hidden), "\u3164", "\u115f", "\u2800", "\ufe0f", "\u034f").any()


def test_letters_digits_marks_and_signs_are_visible():
    assert of(visible, "a", "1", "-", "\u00e9", "\u4e2d", "\u0645", "\U0001f600", "\u200bx").all()
    assert of(visible, None).to_list() == [None]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Caf\u00e9", "Cafe\u0301"),
        ("Heat", "HEAT"),
        ("The  Ring", " The\u00a0Ring "),
        ("\ufb01lm", "film"),
        ("\u2163", "IV"),
        ("so\u00adft", "soft"),
        ("a\u200bb", "ab"),
    ],
)
def test_texts_that_look_alike_have_one_key(one, other):
    assert of(appearance, one, other).n_unique() == 1


def test_texts_that_look_different_have_different_keys():
    assert of(appearance, "ab", "a b", "a-b", "\u00e1b", "ab1").n_unique() == 5


def test_ids_that_look_alike_are_counted():
    assert lookalikes(pl.Series(["u1", "U1", "u2", "caf\u00e9", "cafe\u0301", "u10"])) == {
        "count": 4,
        "example": ["cafe\u0301", "caf\u00e9"],
        "by_case": 2,
    }
    assert lookalikes(pl.Series(["a", "b"])) == {"count": 0, "example": [], "by_case": 0}


@pytest.mark.parametrize(
    ("same", "standing"),
    [
        ("exact", ["u1", "U1", "u1 ", "caf\u00e9", "cafe\u0301"]),
        ("blanks", ["u1", "U1", "u1", "cafe\u0301", "cafe\u0301"]),
        ("case", ["U1", "U1", "U1", "cafe\u0301", "cafe\u0301"]),
    ],
)
def test_the_first_of_the_ids_that_are_one_stands_for_them(same, standing):
    ids = pl.Series(["u1", "U1", "u1 ", "caf\u00e9", "cafe\u0301"])
    assert one_id(ids, same).to_list() == standing
