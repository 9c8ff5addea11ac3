import numpy as np
import pytest

from recalign.data.arrays import sorted_unique
from recalign.errors import UserError
from recalign.preparation.candidates import NegativeItems, candidate_sets, genre_matrix
from recalign.preparation.sliding_windows import slide
from tests.preparation.test_sliding_windows import log_of

ITEMS = 30


def draw(log, size=8, targets=1, seed=0, negatives=None):
    windows = slide(log, log.start[:-1] + 1, log.start[1:], history=5, targets=targets, stride=1)
    consumed = sorted_unique(log.user * ITEMS + log.item)
    return windows, candidate_sets(windows, consumed, ITEMS, size, np.random.default_rng(seed), negatives)


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


def test_negatives_by_popularity_are_drawn_in_proportion_to_training_interactions():
    """Item i has i + 1 interactions; one negative a row is an item that its user never had."""
    popularity = np.arange(1, ITEMS + 1)
    negatives = NegativeItems("popularity", popularity, np.zeros((ITEMS, 0), dtype=bool))
    log = log_of(*([0, 1] for _ in range(6000)))
    _, sets = draw(log, size=2, negatives=negatives)
    counts = np.bincount(sets.sum(axis=1) - 1, minlength=ITEMS)  # the target is item 1
    expected = 6000 * popularity[2:] / popularity[2:].sum()
    assert counts[:2].sum() == 0
    assert (np.abs(counts[2:] - expected) < 5 * np.sqrt(expected)).all()


def test_items_that_nobody_had_in_training_are_no_negatives_by_popularity():
    popularity = np.r_[np.ones(5, dtype=int), np.zeros(ITEMS - 5, dtype=int)]
    negatives = NegativeItems("popularity", popularity, np.zeros((ITEMS, 0), dtype=bool))
    _, sets = draw(log_of([0, 29]), size=4, negatives=negatives)
    assert sorted(sets[0].tolist()) == [1, 2, 3, 4] or 29 in sets[0]
    with pytest.raises(UserError, match="1 of the 5 items that training interactions name"):
        draw(log_of([0, 29]), size=6, negatives=negatives)


def test_negatives_of_the_category_share_a_genre_with_the_target_as_far_as_there_are_any():
    """Genres by item % 3; item 3's are 0, 3, .. 27, of which the user had 0 and 3: eight are left."""
    genres = genre_matrix([[f"g{item % 3}"] for item in range(ITEMS)])
    negatives = NegativeItems("category", np.ones(ITEMS, dtype=int), genres)
    log = log_of(*([0, 3] for _ in range(200)))
    _, sets = draw(log, size=6, negatives=negatives)
    assert (sets % 3 == 0).all() and (sets != 0).all() and all(len({*row}) == 6 for row in sets.tolist())
    assert len(np.unique(sets)) == 9
    _, sets = draw(log, size=12, negatives=negatives)  # the other three are of any category
    assert ((sets % 3 == 0).sum(axis=1) == 9).all() and all(len({*row}) == 12 for row in sets.tolist())


def test_genres_may_be_missing():
    assert genre_matrix([["a", "b"], None, ["b"]]).tolist() == [[True, True], [False, False], [False, True]]
