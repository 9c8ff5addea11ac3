"""dgu on lists and histories small enough to work out by hand."""

import pytest

from recalign.errors import UserError
from recalign.plugins.registry import create


def score(catalogue, predictions, rows, cutoff=None):
    metric = create("metric", "dgu")
    metric.bind(catalogue, cutoff)
    return metric.score(predictions, rows)


def test_by_hand(catalogue, make_predictions, make_row):
    # Genres of the items: x, xy, y, z, none. Histories show x 2.5, y 0.5 of 3; lists x 0.5, y 1.5, z 1 of 3.
    rows = [make_row(history=[0, 1]), make_row(history=[0, 4])]
    found = score(catalogue, make_predictions([[1, 2], [3, -1]]), rows)
    assert found == pytest.approx(1 / 3 - (0.5 / 3 - 2.5 / 3))


def test_lists_like_the_histories_are_worth_0_and_opposite_ones_2(catalogue, make_predictions, make_row):
    rows = [make_row(history=[0]), make_row(history=[0])]
    assert score(catalogue, make_predictions([[0], [0]]), rows) == 0.0
    assert score(catalogue, make_predictions([[3], [3]]), rows) == 2.0
    assert score(catalogue, make_predictions([[0, 3], [0, 3]]), rows, cutoff=1) == 0.0


def test_nothing_of_any_genre_has_no_exposure(catalogue, make_predictions, make_row):
    assert score(catalogue, make_predictions([[4], [-1]]), [make_row(history=[0])] * 2) == 1.0


def test_genres_are_needed(catalogue):
    from dataclasses import replace

    with pytest.raises(UserError, match="'dgu' reads genres"):
        score(replace(catalogue, genres=[()] * 5), None, [])
