import numpy as np

from recalign.data.arrays import is_member, ranges, renumber, sorted_unique


def test_ranges_concatenate_runs_and_skip_empty_ones():
    assert ranges(np.array([5, 9, 2]), np.array([2, 0, 3])).tolist() == [5, 6, 2, 3, 4]


def test_sorted_unique_equals_numpys():
    values = np.random.default_rng(0).integers(0, 50, 300)
    np.testing.assert_array_equal(sorted_unique(values), np.unique(values))
    assert sorted_unique(values[:0]).tolist() == []


def test_membership_keeps_the_shape_and_an_empty_set_holds_nothing():
    values = np.array([[1, 7], [9, 2]])
    assert is_member(values, np.array([2, 7])).tolist() == [[False, True], [False, True]]
    assert not is_member(values, np.array([], dtype=int)).any()


def test_renumber_closes_gaps():
    present, dense = renumber(np.array([7, 2, 7, 4]))
    assert present.tolist() == [2, 4, 7]
    assert dense.tolist() == [2, 0, 2, 1]
