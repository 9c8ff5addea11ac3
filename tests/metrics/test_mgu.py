import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recalign.api import Catalogue, ListBatch, Row
from recalign.errors import UserError
from recalign.plugins.registry import create

GENRES = [("x",), ("x", "y"), ("y", "z"), ("z",), (), ("x", "y", "z")]


def mgu(catalogue, cutoff=None):
    reward = create("metric", "mgu")
    reward.bind(catalogue, cutoff)
    return reward


def plain_mgu(items, history, genres, names):
    """The definition, one list at a time: None stands for the genre of wasted positions."""

    def frequencies(positions):
        total = dict.fromkeys([*names, None], 0.0)
        for item in positions:
            for genre in (None,) if item is None else genres[item]:
                total[genre] += 1.0 if item is None else 1.0 / len(genres[item])
        mass = sum(total.values())
        return {genre: value / mass if mass else 0.0 for genre, value in total.items()}

    positions = [item if item >= 0 and item not in items[:p] else None for p, item in enumerate(items)]
    if not any(item is not None and genres[item] for item in positions):
        return 2 / len(names)
    shown, wished = frequencies(positions), frequencies(history)
    return sum(abs(shown[genre] - wished[genre]) for genre in shown) / len(names)


def test_by_hand(catalogue, make_row, make_lists):
    row = make_row(history=[0, 0, 1, 3])  # x 2.5, y .5, z 1 of 4
    lists = make_lists([[0, 2], [3], [0, 0, 1, 3]], row)
    scores = mgu(catalogue).score(lists)
    assert scores[0] == pytest.approx((abs(0.5 - 0.625) + abs(0.5 - 0.125) + 0.25) / 3)
    assert scores[1] == pytest.approx((0.625 + 0.125 + 0.75) / 3)
    assert scores[2] == pytest.approx((abs(0.375 - 0.625) + 0 + 0 + 0.25) / 3)  # the copy is a quarter gone astray


def test_the_same_genres_as_the_history_score_zero(catalogue, make_row, make_lists):
    assert mgu(catalogue).score(make_lists([[2, 0]], make_row(history=[0, 2]))) == pytest.approx([0.0])


def test_empty_lists_invalid_text_and_lists_without_genres_score_the_worst(catalogue, make_row, make_lists):
    lists = make_lists([[], [-1, -1], [4], [3]], make_row(history=[0]))
    assert mgu(catalogue).score(lists) == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2 / 3])


def test_cutoff_leaves_out_what_comes_later(catalogue, make_row, make_lists):
    assert mgu(catalogue, 1).score(make_lists([[0, 3]], make_row(history=[0]))) == pytest.approx([0.0])


def test_a_history_without_genres_is_left_out(catalogue, make_row):
    assert not mgu(catalogue).defined_for(make_row(history=[4]))
    assert not mgu(catalogue).defined_for(make_row(history=[]))
    assert mgu(catalogue).defined_for(make_row(history=[4, 0]))


def test_a_dataset_without_genres_is_refused():
    bare = Catalogue(["a"], ["A"], [()], [""], np.zeros(1, dtype=np.int64))
    with pytest.raises(UserError, match="reads genres, and no item"):
        mgu(bare)


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.integers(-1, 5), min_size=4, max_size=4), min_size=1, max_size=6),
    st.lists(st.integers(0, 5), max_size=6),
    st.integers(1, 4),
)
def test_vectorised_score_equals_the_plain_definition(lists, history, cutoff):
    names = [str(i) for i in range(6)]
    reward = mgu(Catalogue(names, names, GENRES, names, np.zeros(6, dtype=np.int64)), cutoff)
    row = Row(0, "u", np.array(history, dtype=np.int64), np.array([0]), np.array([1.0]), 0.0)
    batch = ListBatch(np.array(lists), np.full(len(lists), 4), [row] * len(lists), np.zeros(len(lists)))
    expected = [plain_mgu(items[:cutoff], history, GENRES, ["x", "y", "z"]) for items in lists]
    np.testing.assert_allclose(reward.score(batch), expected, atol=1e-12)
