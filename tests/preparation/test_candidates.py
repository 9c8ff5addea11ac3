import numpy as np
import pytest

from recalign.data.arrays import sorted_unique
from recalign.errors import UserError
from recalign.preparation.candidates import candidate_sets
from recalign.preparation.sliding_windows import slide
from tests.preparation.test_sliding_windows import log_of

ITEMS = 30


def draw(log, size=8, targets=1, seed=0):
    windows = slide(log, log.start[:-1] + 1, log.start[1:], history=5, targets=targets, stride=1)
    consumed = sorted_unique(log.user * ITEMS + log.item)
    return windows, candidate_sets(windows, consumed, ITEMS, size, np.random.default_rng(seed))


@pytest.mark.parametrize("targets", [1, 3])
def test_candidates_are_distinct_hold_the_targets_and_nothing_else_that_the_user_consumed(targets):
    random = np.random.default_rng(1)
    log = log_of(*(random.integers(0, ITEMS, 12) for _ in range(20)))
    windows, sets = draw(log, targets=targets)
    assert sets.shape == (len(windows), 8)
    for row, user, cut in zip(sets, windows.user, windows.cut, strict=True):
        life = set(log.item[log.start[user] : log.start[user + 1]].tolist())
        wanted = set(log.item[cut : cut + targets].tolist())
        assert len(set(row.tolist())) == 8
        assert life & set(row.tolist()) == wanted


def test_the_place_of_the_target_is_random_and_the_seed_fixes_it():
    log = log_of(*([n % 5, 10 + n % 5] for n in range(400)))
    windows, sets = draw(log)
    places = np.argmax(sets == log.item[windows.cut][:, None], axis=1)
    assert np.bincount(places, minlength=8).min() > 20  # 400 draws over 8 places: 50 expected, sd 6.6
    np.testing.assert_array_equal(sets, draw(log)[1])
    assert (sets != draw(log, seed=1)[1]).any()


def test_a_user_who_consumed_nearly_everything_is_reported():
    with pytest.raises(UserError, match="28 of the 30 items"):
        draw(log_of(range(28)), size=8)
