"""pr on lists small enough to work out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from recalign.plugins.registry import create


def rates(catalogue, lists, exact, cutoff):
    metric = create("metric", "pr")
    metric.bind(catalogue, cutoff)
    return metric.score(replace(lists, exact=exact)).tolist()


@pytest.mark.parametrize(
    ("beam", "expected"), [([2, 0, 1], [0, 0, 1 / 2]), ([0, 1], [0, 1 / 2, 1]), ([0, 4, 2], [0, 0, 0])]
)
def test_by_hand(catalogue, make_lists, make_predictions, make_row, beam, expected):
    row = make_row(targets=[2, 3, 4], gains=[1.0, 0.0, 1.0])
    found = [rates(catalogue, make_lists([beam], row), make_predictions([[3, 2, 4]]), k)[0] for k in (1, 2, 3)]
    assert found == expected


def test_padding_is_no_item(catalogue, make_lists, make_predictions, make_row):
    row = make_row(targets=[2])
    short = make_predictions([[1, 2, 2]])
    short = replace(short, lengths=np.array([1]))
    assert rates(catalogue, make_lists([[1]], row), make_predictions([[3, 4, 2]]), 3) == [1.0]
    assert rates(catalogue, make_lists([[3, 4, 0]], row), short, 3) == [0.0]


def test_a_row_without_a_relevant_target_is_left_out(make_row):
    assert not create("metric", "pr").defined_for(make_row(targets=[1], gains=[0.0]))
