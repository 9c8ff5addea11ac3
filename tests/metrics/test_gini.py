"""gini on lists small enough to work out by hand."""

import pytest

from recalign.plugins.registry import create


@pytest.mark.parametrize(
    ("lists", "cutoff", "expected"),
    [
        ([[0, 1, 2, 3, 4]], None, 0.0),
        ([[0, 1, 2], [0, 3, 4]], 1, 0.8),  # one item of five takes all
        ([[0, 1], [0, -1], [0, -1]], None, 2 * (4 * 1 + 5 * 3) / (5 * 4) - 6 / 5),  # counts 0 0 0 1 3
        ([[-1, -1]], None, 0.0),
    ],
)
def test_by_hand(catalogue, make_predictions, lists, cutoff, expected):
    metric = create("metric", "gini")
    metric.bind(catalogue, cutoff)
    assert metric.score(make_predictions(lists), []) == pytest.approx(expected)
