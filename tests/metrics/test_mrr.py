"""mrr on lists small enough to work out by hand."""

import pytest

from recalign.plugins.registry import create

LISTS = [[2, 1, 0], [0, 0, -1], [1, 1], [], [3, 4, 0]]


@pytest.mark.parametrize(
    ("cutoff", "expected"),
    [
        (None, [1 / 2, 0, 1, 0, 0]),
        (1, [0, 0, 1, 0, 0]),
    ],
)
def test_by_hand(catalogue, make_lists, make_row, cutoff, expected):
    metric = create("metric", "mrr")
    metric.bind(catalogue, cutoff)
    row = make_row(targets=[1, 2], gains=[1.0, 0.0], history=[0, 3])
    assert metric.score(make_lists(LISTS, row)) == pytest.approx(expected)


def test_a_row_without_a_relevant_target_is_left_out(make_row):
    metric = create("metric", "mrr")
    assert metric.defined_for(make_row(targets=[1, 2], gains=[1.0, 0.0]))
    assert not metric.defined_for(make_row(targets=[1], gains=[0.0]))
