from dataclasses import replace

import numpy as np
import pytest

from recalign.data.dataset import SPLITS
from recalign.errors import UserError
from recalign.preparation.prepare_options import resolve
from recalign.preparation.splits import SPLITTERS, as_provided
from tests.preparation.test_sliding_windows import log_of, shown

MODES = {
    "time": {},
    "time of lists": {"split": "time", "task": "list", "targets": 4, "list_length": 2},
    "user": {"split": "user", "folds": 5, "fold": 2},
    "user of lists": {"split": "user", "task": "list", "targets": 4, "list_length": 2},
    "leave-one-out": {"split": "leave-one-out"},
    "last-n": {"split": "last-n", "held_out": 3},
    "last-n of lists": {"split": "last-n", "held_out": 5, "task": "list", "targets": 3, "list_length": 2},
    "leave-one-out of lists": {"split": "leave-one-out", "task": "list", "targets": 3, "list_length": 2},
}


def world(users=30, events=15, seed=0):
    """Users with distinct items at interleaved times."""
    random = np.random.default_rng(seed)
    log = log_of(*(random.permutation(40)[: events + user % 3] for user in range(users)))
    time = np.concatenate([np.sort(random.choice(1000, size, replace=False)) for size in np.diff(log.start)])
    return replace(log, time=time.astype(float))


def split(log, seed=0, **given):
    options = resolve(given, {})
    return SPLITTERS[options.split](log, options, seed)


@pytest.mark.parametrize("mode", MODES)
def test_no_held_out_target_is_among_its_users_training_interactions(mode):
    log = world()
    parts = split(log, **MODES[mode])
    seen = set(np.flatnonzero(parts.training).tolist())
    assert seen
    for name in ("valid", "test"):
        assert len(parts.windows[name])
        assert not seen & set(parts.windows[name].target_positions.ravel().tolist())
    used = set(parts.windows["train"].target_positions.ravel().tolist())
    histories = {p for w in shown_positions(parts.windows["train"]) for p in w}
    assert used | histories <= seen


def shown_positions(windows):
    return [range(lo, cut) for lo, cut in zip(windows.lo, windows.cut, strict=True)]


@pytest.mark.parametrize("mode", ["time", "time of lists"])
def test_a_split_by_time_puts_every_target_on_its_side_of_the_cuts(mode):
    log = world()
    parts = split(log, **MODES[mode])
    valid_from, test_from = parts.facts["valid_from"], parts.facts["test_from"]
    times = {name: log.time[parts.windows[name].target_positions] for name in SPLITS}
    assert log.time[parts.training].max() < valid_from <= times["valid"].min()
    assert times["train"].max() < valid_from
    assert times["valid"].max() < test_from <= times["test"].min()
    assert 0.75 < parts.training.mean() < 0.85


def test_a_split_by_time_of_the_next_task_uses_every_later_event_once():
    log = world()
    parts = split(log)
    targets = np.concatenate([parts.windows[name].cut for name in SPLITS])
    firsts = log.start[:-1]
    assert sorted(targets.tolist()) == sorted(set(range(len(log))) - set(firsts.tolist()))


def test_folds_test_every_user_once_and_never_on_a_training_user():
    log, tested = world(), []
    for fold in range(1, 6):
        windows = split(log, split="user", folds=5, fold=fold).windows
        users = {name: set(windows[name].user.tolist()) for name in SPLITS}
        assert not users["train"] & users["valid"] and not users["train"] & users["test"]
        assert not users["valid"] & users["test"]
        assert len(users["train"] | users["valid"] | users["test"]) == 30
        assert len(windows["test"]) == len(users["test"]) == 6
        tested += windows["test"].user.tolist()
    assert sorted(tested) == list(range(30))


def test_held_out_users_give_their_last_window():
    log = world()
    windows = split(log, split="user", task="list", targets=4, list_length=2, history=6).windows["test"]
    np.testing.assert_array_equal(windows.cut + 4, log.start[windows.user + 1])
    np.testing.assert_array_equal(windows.cut - windows.lo, 6)


def test_leave_one_out_by_hand():
    log = log_of([1, 2, 3, 4, 5], [6, 7])
    parts = split(log, split="leave-one-out")
    assert shown(parts.windows["train"]) == [([1], [2]), ([1, 2], [3])]
    assert shown(parts.windows["valid"]) == [([1, 2, 3], [4])]
    assert shown(parts.windows["test"]) == [([1, 2, 3, 4], [5])]
    assert parts.training.tolist() == [True, True, True, False, False, False, False]
    assert parts.dropped_users == 1


def test_last_n_tests_every_one_of_the_last_events_by_hand():
    log = log_of([1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4])
    parts = split(log, split="last-n", held_out=2, history=2)
    assert shown(parts.windows["test"]) == [([4, 5], [6]), ([5, 6], [7])]
    assert shown(parts.windows["valid"]) == [([2, 3], [4]), ([3, 4], [5])]
    assert shown(parts.windows["train"]) == [([1], [2]), ([1, 2], [3])]
    assert np.flatnonzero(parts.training).tolist() == [0, 1, 2]
    assert parts.dropped_users == 1


def test_full_windows_and_one_of_a_short_life_by_hand():
    log, options = log_of([1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14]), {"full_windows": True, "history": 3}
    told = shown(split(log, split="leave-one-out", **options).windows["train"])
    assert told == [([1, 2, 3], [4]), ([2, 3, 4], [5]), ([8], [9])]
    every = split(world(), split="time", **options)
    sizes = np.concatenate([part.cut - part.lo for part in every.windows.values()])
    assert len(sizes) == (np.diff(world().start) - 3).sum() and (sizes == 3).all()
    plain = split(world(), split="time", history=3)
    assert len(plain.windows["test"]) == len(every.windows["test"])  # there every history is whole


def test_leave_one_out_is_last_n_of_as_many_as_there_are_targets():
    log, shape = world(), {"task": "list", "targets": 3, "list_length": 2}
    one, other = split(log, split="leave-one-out", **shape), split(log, split="last-n", held_out=3, **shape)
    for name in SPLITS:
        assert shown(one.windows[name]) == shown(other.windows[name])


def test_the_seed_chooses_the_users():
    log = world()
    first, again, other = (split(log, seed=seed, split="user").windows["test"].user.tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_equal_times_cannot_be_split_by_time():
    log = world()
    with pytest.raises(UserError, match="1 distinct times"):
        split(replace(log, time=np.zeros(len(log))))


def test_too_few_users_for_the_folds():
    with pytest.raises(UserError, match="3 users .* 10 folds"):
        split(log_of([1, 2], [3, 4], [5, 6]), split="user")


def test_given_windows_stay_and_the_latest_training_windows_validate_where_none_do():
    log = log_of(*([n, n + 1] for n in range(12)), [3])
    log = replace(log, time=np.repeat(np.arange(13.0), np.diff(log.start)))
    split_of = np.array([0] * 10 + [2, 2] + [0])
    parts = as_provided(log, resolve({"split": "provided", "valid_share": 0.2}, {}), split_of)
    assert [len(parts.windows[name]) for name in SPLITS] == [8, 2, 2]
    assert shown(parts.windows["valid"]) == [([8], [9]), ([9], [10])]
    assert parts.facts["windows_too_short"] == 1
    with pytest.raises(UserError, match="valid.csv"):
        as_provided(replace(log, time=np.zeros(len(log))), resolve({"split": "provided"}, {}), split_of)


def test_files_that_hold_out_the_last_events_split_like_last_n():
    log = world()
    number = np.arange(len(log)) - log.start[:-1][log.sequence]
    left = np.diff(log.start)[log.sequence] - number
    given = replace(log, split=np.where(left <= 3, 2, np.where(left <= 6, 1, 0)).astype(np.int8))
    ours, theirs = split(given, split="provided"), split(log, split="last-n", held_out=3)
    assert ours.facts["files_split_in_time"]
    assert (ours.training == theirs.training).all()
    for name in SPLITS:
        assert shown(ours.windows[name]) == shown(theirs.windows[name])


def test_files_of_a_random_split_show_training_events_alone_and_chunks_of_targets():
    """u0: 1 2 3 trained at 0, 4, 8; 4 5 6 7 8 held out between. u1 has nothing to show."""
    log = log_of([1, 2, 1, 1, 4, 5, 6, 7], [9, 9])
    log = replace(
        log,
        time=np.array([0.0, 4, 8, 1, 2, 3, 5, 6, 0, 1]),
        split=np.array([0, 0, 0, 1, 2, 2, 2, 2, 1, 2], np.int8),
    )
    parts = split(log, split="provided", history=2)
    assert shown(parts.windows["train"]) == [([1], [2]), ([1, 2], [1])]
    assert shown(parts.windows["valid"]) == [([2, 1], [1])]
    assert shown(parts.windows["test"]) == [([2, 1], [item]) for item in (4, 5, 6, 7)]
    assert parts.windows["valid"].repeats_past().tolist() == [True]  # behind the history there is another 1
    assert parts.facts["held_out_without_row"] == {"valid": 1, "test": 1}
    lists = split(log, split="provided", history=2, task="list", targets=3, list_length=1)
    assert shown(lists.windows["test"]) == [([2, 1], [5, 6, 7])]
    assert lists.facts["held_out_without_row"] == {"valid": 2, "test": 2}


def test_targets_repeat_the_past_where_it_lies_before_events_that_no_history_shows():
    log = replace(log_of([1, 2, 1, 1]), time=np.array([5.0, 6, 1, 2]), split=np.array([0, 0, 1, 2], np.int8))
    parts = split(log, split="provided", history=1)
    assert shown(parts.windows["test"]) == [([2], [1])]
    assert (parts.windows["test"].repeats_past().tolist(), parts.windows["test"].repeats_history().tolist()) == (
        [True],
        [False],
    )


def test_sequences_without_events_are_no_trouble_of_a_split_by_time():
    log = world()
    empty = replace(
        log,
        users=[*log.users, "v"],
        owner=np.append(log.owner, len(log.users)),
        start=np.append(log.start, len(log)),
    )
    assert shown(split(empty).windows["test"]) == shown(split(log).windows["test"])
