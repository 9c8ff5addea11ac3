"""coverage on lists small enough to work out by hand."""

import pytest

from recalign.plugins.registry import create


@pytest.mark.parametrize(
    ("lists", "cutoff", "expected"),
    [
        ([[0, 1, 2], [3, 4, 0]], None, 1.0),
        ([[0, 1, 2], [3, 4, 0]], 1, 2 / 5),
        ([[0, -1], [0, 1]], None, 2 / 5),
        ([[-1, -1], []], None, 0.0),
    ],
)
def test_by_hand(catalogue, make_predictions, lists, cutoff, expected):
    metric = create("metric", "coverage")
    metric.bind(catalogue, cutoff)
    assert metric.score(make_predictions(lists), []) == pytest.approx(expected)
