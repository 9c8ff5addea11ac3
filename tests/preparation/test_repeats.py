import numpy as np
import pytest

from recalign.preparation.repeats import exact_duplicates, tied, without_repeats


def log(*rows):
    user, item, time, rating = (np.array(column) for column in zip(*rows, strict=True))
    return user, item, time.astype(float), rating.astype(float)


NAN = float("nan")
ROWS = log(
    (0, 5, 1, 4),
    (0, 5, 1, 3),
    (0, 5, 1, 4),  # exact, though a row of another rating is between
    (0, 6, 2, NAN),
    (0, 6, 2, NAN),  # exact: no rating is the same as no rating
    (0, 5, 3, 4),  # a repeat at another time
    (1, 5, 1, 4),  # another user's
    (1, 6, 1, 4),
)


def test_exact_duplicates_and_other_repeats_are_counted_apart():
    stays, facts = without_repeats(*ROWS, "keep")
    assert stays is None
    assert facts == {"interactions_read": 8, "exact_duplicates": 2, "repeated_items": 2, "duplicates_left_out": 0}


@pytest.mark.parametrize(
    ("duplicates", "kept"),
    [("drop", [0, 1, 3, 5, 6, 7]), ("first", [0, 3, 6, 7]), ("last", [4, 5, 6, 7])],
)
def test_what_stays(duplicates, kept):
    stays, facts = without_repeats(*ROWS, duplicates)
    assert np.flatnonzero(stays).tolist() == kept
    assert facts["duplicates_left_out"] == 8 - len(kept)


def test_without_ratings_user_item_and_time_decide():
    user, item, time, _ = ROWS
    assert without_repeats(user, item, time, None, "keep")[1]["exact_duplicates"] == 3


def test_exact_duplicates_equal_a_set_of_rows():
    random = np.random.default_rng(0)
    user, time = np.sort(random.integers(0, 5, 400)), random.integers(0, 4, 400).astype(float)
    order = np.lexsort((time, user))
    time, item = time[order], random.integers(0, 6, 400)
    rating = random.choice([1.0, 2.0, NAN], 400)
    seen, expected = set(), []
    for row in zip(user, item, time, np.nan_to_num(rating, nan=-1), strict=True):
        expected.append(row in seen)
        seen.add(row)
    from recalign.data.arrays import previous_same

    assert exact_duplicates(user, item, time, rating, previous_same(user, item)).tolist() == expected


def test_a_log_without_repeats_stays_whole():
    stays, facts = without_repeats(*log((0, 1, 1, 4), (0, 2, 1, 4)), "drop")
    assert (stays.all(), facts["exact_duplicates"]) == (True, 0)


def test_events_of_one_time_are_tied_unless_all_are_of_one_item():
    sequence = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1])
    time = np.array([1, 2, 2, 3, 3, 4, 4, 5, 6.0])
    item = np.array([1, 2, 3, 4, 4, 5, 6, 7, 8])
    assert tied(sequence, item, time).tolist() == [False, True, True] + [False] * 6
    assert tied(sequence[:0], item[:0], time[:0]).tolist() == []
    assert tied(np.zeros(3, int), np.array([1, 2, 1]), np.ones(3)).all()


def test_one_item_of_two_ratings_at_once_is_tied_too():
    sequence, item, time = np.zeros(4, int), np.array([1, 1, 2, 2]), np.array([1, 1, 2, 2.0])
    assert tied(sequence, item, time, np.array([4, 5, NAN, NAN])).tolist() == [True, True, False, False]
