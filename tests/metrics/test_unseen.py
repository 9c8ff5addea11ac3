"""unseen on lists small enough to work out by hand."""

import pytest

from recalign.plugins.registry import create

LISTS = [[2, 1, 0], [0, 0, -1], [1, 1], [], [3, 4, 0]]


@pytest.mark.parametrize(
    ("cutoff", "expected"),
    [
        (None, [0, 0, 0, 0, 1 / 3]),
        (2, [0, 0, 0, 0, 1 / 2]),
    ],
)
def test_by_hand(catalogue, make_lists, make_row, cutoff, expected):
    metric = create("metric", "unseen")
    metric.bind(catalogue, cutoff)
    row = make_row(targets=[1, 2], gains=[1.0, 0.0], history=[0, 3])
    assert metric.score(make_lists(LISTS, row)) == pytest.approx(expected)
