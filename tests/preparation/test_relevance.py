import numpy as np
import pytest

from recalign.errors import UserError
from recalign.preparation.relevance import check_relevance, gains

RATINGS = np.array([1.0, 3.5, 4.0, 5.0])


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("all", [1, 1, 1, 1]),
        ("rating", [1, 3.5, 4, 5]),
        ("rating>=4", [0, 0, 1, 1]),
        ("rating > 4", [0, 0, 0, 1]),
        ("rating<=3.5", [1, 1, 0, 0]),
        ("rating< 3.5", [1, 0, 0, 0]),
    ],
)
def test_rules_give_gains(rule, expected):
    assert gains(rule, RATINGS, 4).tolist() == expected


@pytest.mark.parametrize("rule", ["rating==4", "rating>=", "__import__('os')", "stars>=4", "rating>=4 or 1", ""])
def test_anything_else_is_refused_with_the_value(rule):
    with pytest.raises(UserError) as error:
        check_relevance(rule)
    assert repr(rule) in error.value.what
    assert "rating>=4" in error.value.hint


def test_a_rule_on_ratings_needs_ratings():
    with pytest.raises(UserError, match="source has none"):
        gains("rating>=4", None, 3)
    with pytest.raises(UserError, match="1 of 4 interactions have none"):
        gains("rating", np.array([1, np.nan, 2, 3]), 4)
    assert gains("all", None, 3).tolist() == [1, 1, 1]


def test_negative_ratings_are_no_gains():
    with pytest.raises(UserError, match="-2"):
        gains("rating", np.array([3.0, -2.0]), 2)
