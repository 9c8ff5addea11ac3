"""Novelty on a catalogue small enough to work out by hand."""

import numpy as np
import pytest
from recalign_novelty import Novelty, NoveltyParams

from recalign.api import INVALID, Catalogue, ListBatch, Row

ROW = Row(0, "u", np.array([0]), np.array([1]), np.array([1.0]), 0.0)


def score(items, cutoff=None, **params):
    """Counts 5, 1, 0 with smoothing 1 give shares 6/9, 2/9, 1/9."""
    popularity = np.array([5, 1, 0])
    reward = Novelty(NoveltyParams(**params))
    reward.bind(Catalogue(["a", "b", "c"], ["A", "B", "C"], [()] * 3, [""] * 3, popularity), cutoff)
    padded = np.full((len(items), 3), INVALID)
    for place, each in zip(padded, items, strict=True):
        place[: len(each)] = each
    lengths = np.array([len(each) for each in items])
    return reward.score(ListBatch(padded, lengths, [ROW] * len(items), np.zeros(len(items))))


def test_value_is_the_mean_information_of_the_items():
    expected = [-np.log2(6 / 9), (-np.log2(2 / 9) - np.log2(1 / 9)) / 2]
    assert score([[0], [1, 2]]) == pytest.approx(expected, abs=1e-12)


def test_rarer_items_are_worth_more():
    common, rare, unseen = score([[0], [1], [2]])
    assert common < rare < unseen


def test_invalid_text_takes_a_position_and_an_empty_list_is_worth_nothing():
    half, empty = score([[1, INVALID], []])
    assert half == pytest.approx(-np.log2(2 / 9) / 2)
    assert empty == 0.0


def test_cutoff_looks_at_the_head_only():
    assert score([[0, 2, 2]], cutoff=1) == pytest.approx([-np.log2(6 / 9)])


def test_smoothing_draws_the_shares_together():
    assert np.ptp(score([[0], [2]], smoothing=100.0)) < np.ptp(score([[0], [2]]))
