import pytest

from recalign.plugins.registry import create


def recall(catalogue, cutoff=None):
    reward = create("metric", "recall")
    reward.bind(catalogue, cutoff)
    return reward


def test_share_of_relevant_targets_found(catalogue, make_row, make_lists):
    row = make_row(targets=[0, 1, 2, 3], gains=[5.0, 1.0, 0.0, 2.0])
    lists = make_lists([[0, 2, 4], [0, 1, 3], [4, 2], []], row)
    assert recall(catalogue, 3).score(lists) == pytest.approx([1 / 3, 1.0, 0.0, 0.0])
    assert recall(catalogue, 1).score(lists) == pytest.approx([1 / 3, 1 / 3, 0.0, 0.0])


def test_repeats_and_invalid_text_find_nothing_new(catalogue, make_row, make_lists):
    lists = make_lists([[0, 0, -1]], make_row(targets=[0, 1]))
    assert recall(catalogue).score(lists) == pytest.approx([0.5])


def test_each_list_is_held_against_its_own_row(catalogue, make_row, make_lists):
    first, second = make_row(targets=[0]), make_row(targets=[1, 2], index=1)
    lists = make_lists([[0], [1], [0], [1]], [first, first, second, second])
    assert recall(catalogue, 1).score(lists) == pytest.approx([1.0, 0.0, 0.0, 0.5])


def test_rows_without_relevant_targets_are_left_out(catalogue, make_row):
    assert not recall(catalogue).defined_for(make_row(targets=[0], gains=[0.0]))
    assert recall(catalogue).defined_for(make_row(targets=[0], gains=[1.0]))
