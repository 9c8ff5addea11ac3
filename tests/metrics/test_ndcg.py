import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recalign.api import Catalogue, ListBatch, Row
from recalign.plugins.registry import create

ITEMS = 8


def ndcg(catalogue, cutoff=None):
    reward = create("metric", "ndcg")
    reward.bind(catalogue, cutoff)
    return reward


def plain_ndcg(items, length, row, cutoff):
    """The definition, one list at a time."""
    gain_of = {}
    for item, gain in zip(row.targets, row.gains, strict=True):
        gain_of[item] = max(gain, gain_of.get(item, 0.0))
    end = length if cutoff is None else min(length, cutoff)
    dcg, seen = 0.0, set()
    for position, item in enumerate(items[:end]):
        if item >= 0 and item not in seen:
            dcg += (2 ** gain_of.get(item, 0.0) - 1) / math.log2(position + 2)
        seen.add(item)
    best = sorted(gain_of.values(), reverse=True)[:cutoff]
    ideal = sum((2**gain - 1) / math.log2(position + 2) for position, gain in enumerate(best))
    return dcg / ideal if ideal else 0.0


def test_binary_relevance_by_hand(catalogue, make_row, make_lists):
    lists = make_lists([[0, 1, 2], [2, 0, 1], [3, 4, 2]], make_row(targets=[0, 1]))
    ideal = 1 + 1 / math.log2(3)
    assert ndcg(catalogue, 3).score(lists) == pytest.approx([1.0, (1 / math.log2(3) + 0.5) / ideal, 0.0])


def test_gains_count_exponentially(catalogue, make_row, make_lists):
    lists = make_lists([[1, 0]], make_row(targets=[0, 1], gains=[5.0, 3.0]))
    expected = (7 + 31 / math.log2(3)) / (31 + 7 / math.log2(3))
    assert ndcg(catalogue, 2).score(lists) == pytest.approx([expected])


def test_targets_of_equal_gain_can_come_in_any_order(catalogue, make_row, make_lists):
    lists = make_lists([[0, 1, 2], [2, 1, 0]], make_row(targets=[0, 1, 2], gains=[4.0, 4.0, 4.0]))
    assert ndcg(catalogue, 3).score(lists) == pytest.approx([1.0, 1.0])


def test_a_repeat_scores_once_and_takes_a_position(catalogue, make_row, make_lists):
    lists = make_lists([[0, 0, 1]], make_row(targets=[0, 1]))
    assert ndcg(catalogue, 3).score(lists) == pytest.approx([(1 + 0.5) / (1 + 1 / math.log2(3))])


def test_invalid_text_takes_a_position_and_empty_lists_score_zero(catalogue, make_row, make_lists):
    lists = make_lists([[-1, 0], [], [0]], make_row(targets=[0]))
    assert ndcg(catalogue, 2).score(lists) == pytest.approx([1 / math.log2(3), 0.0, 1.0])


def test_the_ideal_is_cut_at_k_too(catalogue, make_row, make_lists):
    lists = make_lists([[0, 3, 4]], make_row(targets=[0, 1, 2]))
    assert ndcg(catalogue, 1).score(lists) == pytest.approx([1.0])


def test_a_target_given_twice_counts_once_with_its_larger_gain(catalogue, make_row, make_lists):
    lists = make_lists([[0, 1]], make_row(targets=[0, 0, 1], gains=[1.0, 3.0, 0.0]))
    assert ndcg(catalogue, 2).score(lists) == pytest.approx([1.0])


def test_rows_without_relevant_targets_are_left_out(catalogue, make_row, make_lists):
    reward = ndcg(catalogue, 2)
    assert not reward.defined_for(make_row(targets=[0, 1], gains=[0.0, 0.0]))
    assert not reward.defined_for(make_row())
    assert reward.defined_for(make_row(targets=[0, 1], gains=[0.0, 0.5]))
    assert reward.score(make_lists([[0, 1]], make_row(targets=[0], gains=[0.0]))).tolist() == [0.0]


def test_an_empty_batch_scores_nothing(catalogue, make_lists):
    assert ndcg(catalogue, 2).score(make_lists([], [])).shape == (0,)


ROWS = st.lists(
    st.lists(st.tuples(st.integers(0, ITEMS - 1), st.sampled_from([0.0, 1.0, 2.0, 5.0])), max_size=5),
    min_size=1,
    max_size=3,
)


@settings(max_examples=60)
@given(ROWS, st.data(), st.sampled_from([None, 1, 3, 5]))
def test_vectorised_score_equals_the_plain_definition(targets, data, cutoff):
    rows = [
        Row(
            i,
            f"u{i}",
            np.array([0]),
            np.array([t for t, _ in pairs], dtype=np.int64),
            np.array([g for _, g in pairs]),
            0.0,
        )
        for i, pairs in enumerate(targets)
    ]
    answered = [row for row in rows for _ in range(3)]
    items = np.array(
        [data.draw(st.lists(st.integers(-1, ITEMS - 1), min_size=5, max_size=5)) for _ in answered], dtype=np.int64
    )
    lengths = np.array([data.draw(st.integers(0, 5)) for _ in answered])
    names = [str(i) for i in range(ITEMS)]
    reward = ndcg(Catalogue(names, names, [()] * ITEMS, names, np.zeros(ITEMS, dtype=np.int64)), cutoff)
    got = reward.score(ListBatch(items, lengths, answered, np.arange(len(items)) // 3))
    expected = [plain_ndcg(*case, cutoff) for case in zip(items, lengths, answered, strict=True)]
    np.testing.assert_allclose(got, expected, atol=1e-12)
