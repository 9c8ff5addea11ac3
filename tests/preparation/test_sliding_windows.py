from dataclasses import replace

import numpy as np
import pytest

from recalign.preparation.events import EventLog
from recalign.preparation.sliding_windows import each_sequence, slide


def log_of(*lives):
    start = np.concatenate([[0], np.cumsum([len(life) for life in lives])])
    item = np.concatenate([np.asarray(life, dtype=np.int32) for life in lives])
    size = len(item)
    return EventLog(
        [f"u{n}" for n in range(len(lives))], np.arange(len(lives)), start, item, np.arange(size), None, np.ones(size)
    )


def shown(windows):
    items = windows.log.item
    return [
        (items[lo:hi].tolist(), items[cut : cut + windows.targets].tolist())
        for lo, hi, cut in zip(windows.lo, windows.hi, windows.cut, strict=True)
    ]


def test_windows_slide_oldest_first_and_end_with_the_last_event():
    log = log_of([1, 2, 3, 4, 5, 6], [7, 8], [9, 10, 11])
    windows = slide(log, log.start[:-1] + 1, log.start[1:], history=2, targets=2, stride=2)
    assert shown(windows) == [([1, 2], [3, 4]), ([3, 4], [5, 6]), ([9], [10, 11])]
    assert windows.user.tolist() == [0, 0, 2]


@pytest.mark.parametrize("seed", range(5))
def test_windows_equal_the_naive_loop(seed):
    random = np.random.default_rng(seed)
    history, targets, stride, least = random.integers(1, 5, 4)
    lives = [random.integers(0, 9, random.integers(1, 12)) for _ in range(8)]
    expected = []
    for life in lives:
        cuts = range(len(life) - targets, least - 1, -stride)
        expected += [(life[max(0, c - history) : c].tolist(), life[c : c + targets].tolist()) for c in sorted(cuts)]
    log = log_of(*lives)
    windows = slide(log, log.start[:-1] + least, log.start[1:], history=history, targets=targets, stride=stride)
    assert shown(windows) == expected


def test_ready_made_windows_are_taken_once_each():
    log = log_of([1, 2, 3, 4], [5, 6])
    assert shown(each_sequence(log, np.array([0, 1]), history=2, targets=1)) == [([2, 3], [4]), ([5], [6])]


def test_repeated_targets_count_once_and_repeats_of_the_history_are_found():
    log = log_of([1, 2, 3, 2, 3, 3])
    windows = slide(log, np.array([2]), np.array([6]), history=2, targets=3, stride=1)
    assert shown(windows) == [([1, 2], [3, 2, 3]), ([2, 3], [2, 3, 3])]
    assert windows.distinct().tolist() == [[True, True, False], [True, True, False]]
    assert windows.repeats_history().tolist() == [True, True]
    assert not slide(log, np.array([2]), np.array([3]), history=2, targets=1, stride=1).repeats_history().any()


def test_a_repeat_outside_the_truncated_history_is_no_repeat():
    log = log_of([1, 2, 3, 1])
    assert not slide(log, np.array([3]), np.array([4]), history=2, targets=1, stride=1).repeats_history().any()
    assert slide(log, np.array([3]), np.array([4]), history=3, targets=1, stride=1).repeats_history().all()


def test_at_most_spreads_the_kept_windows_evenly_and_keeps_the_last():
    log = log_of(range(12), [1, 2, 3])
    windows = slide(log, log.start[:-1] + 1, log.start[1:], history=4, targets=1, stride=1)
    kept = windows.at_most(3)
    assert np.bincount(windows.user).tolist() == [11, 2]
    assert np.bincount(kept.user).tolist() == [3, 2]  # a short log keeps all
    assert [targets for _, targets in shown(kept)][:3] == [[4], [8], [11]]


def test_windows_whose_targets_depend_on_a_tie_in_time():
    log = replace(log_of([1, 2, 3, 4, 5, 6], [7, 8]), time=np.array([1, 2, 2, 3, 4, 4, 4, 4.0]))
    windows = slide(log, log.start[:-1] + 1, log.start[1:], history=9, targets=1, stride=1)
    # targets 2, 3 (tied with each other), 4 (alone), 5, 6 (tied), and 8, which is tied with 7, its whole history
    assert windows.cut_in_tie().tolist() == [True, True, False, True, True, True]
    both = slide(log, log.start[:-1] + 1, log.start[1:], history=9, targets=2, stride=2)
    assert shown(both) == [([1, 2], [3, 4]), ([1, 2, 3, 4], [5, 6])]
    assert both.cut_in_tie().tolist() == [True, False]  # 5 and 6 are both targets, whatever their order
