import numpy as np

from recalign.api import INVALID, ListBatch, Row, cut_lists, distinct_rows, first_positions, flatten


def test_first_positions_marks_each_value_once():
    marks = first_positions(np.array([[3, 1, 3, 1], [2, 2, 2, 2]]))
    assert marks.tolist() == [[True, True, False, False], [True, False, False, False]]


def row(index):
    return Row(index, f"u{index}", np.array([0]), np.array([1]), np.array([1.0]), 0.0)


def test_cut_lists_score_an_item_once_and_only_before_the_cutoff_and_the_lists_end():
    items = np.array([[4, 4, 2, 3], [1, INVALID, 5, 6]])
    heads = cut_lists(ListBatch(items, np.array([4, 2]), [row(0), row(1)], np.arange(2)), 3)
    assert heads.items.tolist() == [[4, 4, 2], [1, INVALID, INVALID]]
    assert heads.counted.tolist() == [[True, False, True], [True, False, False]]
    assert heads.lengths.tolist() == [3, 2]


def test_runs_of_one_row_collapse():
    first, second = row(0), row(1)
    rows, index = distinct_rows([first, first, second, first])
    assert [row.index for row in rows] == [0, 1, 0]
    assert index.tolist() == [0, 0, 1, 2]


def test_flatten_keeps_empty_arrays_as_empty_segments():
    values, bounds = flatten([np.array([1, 2]), np.array([], dtype=np.int64), np.array([3])])
    assert values.tolist() == [1, 2, 3]
    assert bounds.tolist() == [0, 2, 2, 3]
