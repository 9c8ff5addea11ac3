"""Both metrics on a catalogue small enough to work out by hand."""

import numpy as np
import pytest
from recalign_calibration import Calibration, CalibrationParams
from recalign_serendipity import Serendipity, SerendipityParams

from recalign.api import INVALID, Catalogue, Row

pytest_plugins = ["recalign.testing.fixtures"]

CATALOGUE = Catalogue(
    ["a", "b", "c", "d"],
    ["A", "B", "C", "D"],
    [("Drama",), ("Comedy",), ("Drama", "Comedy"), ()],
    [""] * 4,
    np.array([9, 5, 5, 0]),
)
ROW = Row(0, "u", np.array([0, 0, 0, 1]), np.array([1, 2, 3]), np.array([1.0, 1.0, 0.0]), 0.0)  # 3/4 drama, 1/4 comedy


def calibration(items, cutoff=None, **params):
    metric = Calibration(CalibrationParams(**params))
    metric.bind(CATALOGUE, cutoff)
    return metric.score_one(np.array(items, dtype=int), ROW)


def serendipity(items, **params):
    metric = Serendipity(SerendipityParams(**params))
    metric.bind(CATALOGUE, None)
    return metric.score_one(np.array(items, dtype=int), ROW)


def test_a_list_with_the_proportions_of_the_history_is_calibrated():
    assert calibration([0, 2]) == pytest.approx(0.0, abs=1e-12)  # 1 + 1/2 dramas, 1/2 comedy


def test_the_divergence_is_steck_s():
    drama, comedy = 0.99 * 1.0 + 0.01 * 0.75, 0.01 * 0.25
    expected = 0.75 * np.log(0.75 / drama) + 0.25 * np.log(0.25 / comedy)
    assert calibration([0, 0]) == pytest.approx(expected)
    assert calibration([0, 0]) < calibration([1, 1])


@pytest.mark.parametrize("items", [[], [INVALID], [3, 3]])
def test_a_list_without_any_genre_has_the_worst_value(items):
    assert calibration(items) == pytest.approx(np.log(100))
    assert calibration(items, alpha=0.5) == pytest.approx(np.log(2))


def test_a_history_without_genres_has_no_value():
    metric = Calibration()
    metric.bind(CATALOGUE, None)
    assert metric.defined_for(ROW)
    assert not metric.defined_for(Row(0, "u", np.array([3]), np.array([1]), np.array([1.0]), 0.0))


def test_hits_count_that_popularity_would_not_have_named():
    assert serendipity([2, 1, 0], expected=0) == pytest.approx(2 / 3)
    assert serendipity([2, 1, 0], expected=2) == pytest.approx(1 / 3)  # A and B are expected
    assert serendipity([2, 1, 0], expected=3) == 0.0


def test_copies_and_text_that_is_no_item_take_positions_and_an_empty_list_is_worth_nothing():
    assert serendipity([2, 2, INVALID, 3], expected=1) == 0.25
    assert serendipity([]) == 0.0


def test_both_keep_the_contract_of_metrics(recalign_problems):
    assert recalign_problems(Calibration()) == []
    assert recalign_problems(Serendipity()) == []
