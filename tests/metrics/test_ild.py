import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recalign.api import Catalogue, ListBatch, Row
from recalign.errors import UserError
from recalign.plugins.registry import create

GENRES = [("x",), ("x", "y"), ("y", "z"), ("z",), (), ()]


def ild(catalogue, cutoff=None):
    reward = create("metric", "ild")
    reward.bind(catalogue, cutoff)
    return reward


def plain_ild(items, genres):
    """The definition, one list at a time."""
    total, pairs = 0.0, 0
    for p, first in enumerate(items):
        for q, second in enumerate(items):
            if p == q:
                continue
            pairs += 1
            if min(first, second) < 0 or first in items[:p] or second in items[:q]:
                continue
            union = set(genres[first]) | set(genres[second])
            total += 1 - len(set(genres[first]) & set(genres[second])) / len(union) if union else 0.0
    return total / pairs if pairs else 0.0


def test_by_hand(catalogue, make_row, make_lists):
    # a={x} b={x,y} c={y} d={z}: a-b .5, a-c 1, b-c .5, a-d 1
    lists = make_lists([[0, 1, 2], [0, 3]], make_row())
    assert ild(catalogue).score(lists) == pytest.approx([2 / 3, 1.0])


def test_short_lists_score_zero(catalogue, make_row, make_lists):
    assert ild(catalogue).score(make_lists([[0], []], make_row())).tolist() == [0.0, 0.0]
    assert ild(catalogue, 1).score(make_lists([[0, 3]], make_row())).tolist() == [0.0]


def test_items_without_genres_are_alike(catalogue, make_row, make_lists):
    assert ild(catalogue).score(make_lists([[4, 0]], make_row())) == pytest.approx([1.0])
    names = ["a", "b", "c"]
    two_bare = Catalogue(names, names, [(), (), ("x",)], names, np.zeros(3, dtype=np.int64))
    assert ild(two_bare).score(make_lists([[0, 1]], make_row())) == pytest.approx([0.0])


def test_pairs_with_copies_or_invalid_text_add_nothing(catalogue, make_row, make_lists):
    lists = make_lists([[0, 0, 3], [0, -1, 3]], make_row())
    assert ild(catalogue).score(lists) == pytest.approx([2 / 6, 2 / 6])


def test_a_dataset_without_genres_is_refused():
    with pytest.raises(UserError, match="reads genres"):
        ild(Catalogue(["a"], ["A"], [()], [""], np.zeros(1, dtype=np.int64)))


@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(-1, 5), min_size=4, max_size=4), min_size=1, max_size=6), st.integers(1, 4))
def test_vectorised_score_equals_the_plain_definition(lists, cutoff):
    names = [str(i) for i in range(6)]
    reward = ild(Catalogue(names, names, GENRES, names, np.zeros(6, dtype=np.int64)), cutoff)
    row = Row(0, "u", np.array([0]), np.array([0]), np.array([1.0]), 0.0)
    batch = ListBatch(np.array(lists), np.full(len(lists), 4), [row] * len(lists), np.zeros(len(lists)))
    np.testing.assert_allclose(reward.score(batch), [plain_ild(items[:cutoff], GENRES) for items in lists], atol=1e-12)
