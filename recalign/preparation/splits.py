"""Which windows train, which validate, which test: by time, by user with folds, leave-one-out, last n, or as given.

In every mode the training interactions (all that models and baselines may see) hold no target of valid or test.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from recalign.data.arrays import sorted_unique
from recalign.data.dataset import SPLITS
from recalign.errors import UserError
from recalign.preparation.events import EventLog
from recalign.preparation.sliding_windows import SlidingWindows, each_sequence, slide

if TYPE_CHECKING:
    from recalign.preparation.prepare_options import PrepareOptions


@dataclass(frozen=True)
class Splits:
    """Windows by split, and what training may see.

    Args:
        windows: train, valid, test.
        training: [E] bool, the training interactions.
        dropped_users: users without any window.
        facts: what the report should say: cut times, numbers of users.
        as_given: the splits whose targets the source's files say, whatever the times.
    """

    windows: dict[str, SlidingWindows]
    training: np.ndarray
    dropped_users: int
    facts: dict[str, Any]
    as_given: tuple[str, ...] = ()


def split_by_time(log: EventLog, options: PrepareOptions, seed: int) -> Splits:
    """Split at two points of time, the same for all users.

    The cuts are quantiles of the events' times (8:1:1 by default). A window belongs to the split in which all its
    targets lie; its history may begin earlier. Training interactions are those before the first cut.

    Raises:
        UserError: all events carry the same time.
    """
    train_share = 1.0 - options.valid_share - options.test_share
    early, late = np.quantile(log.time, [train_share, 1.0 - options.test_share], method="higher")
    if not log.time.min() < early < late <= log.time.max():
        raise UserError(
            f"A split by time finds no two cuts: the {len(log)} events have {len(np.unique(log.time))} distinct times.",
            "Pass --split user or --split leave-one-out.",
        )
    before_early, before_late = (_per_sequence(log, log.time < each) for each in (early, late))
    begin, end = log.start[:-1], log.start[1:]
    earliest = _earliest(begin, end, options)
    shape = {"history": options.history, "targets": options.targets, "stride": options.stride}
    first, second = begin + before_early, begin + before_late
    windows = {
        "train": slide(log, earliest, first, **shape),
        "valid": slide(log, np.maximum(earliest, first), second, **shape),
        "test": slide(log, np.maximum(earliest, second), end, **shape),
    }
    return _without_dropped(log, windows, log.time < early, {"valid_from": float(early), "test_from": float(late)})


def split_by_user(log: EventLog, options: PrepareOptions, seed: int) -> Splits:
    """Split the users: training users give sliding windows, the others one window each, their last.

    Users are shuffled once by the seed; fold f of F tests the f-th part, so that the folds together test every user
    once; the validation users are those that follow in the shuffled order. Training interactions are the training
    users' alone.

    Raises:
        UserError: fewer users than folds.
    """
    begin, end = log.start[:-1], log.start[1:]
    able = np.flatnonzero(end - begin >= options.min_history + options.targets)
    order = able[np.random.default_rng([seed, 10]).permutation(len(able))]
    parts = options.folds or round(1 / options.test_share)
    bounds = np.round(np.linspace(0, len(order), parts + 1)).astype(int)
    lower, upper = bounds[options.fold - 1], bounds[options.fold]
    valid_count = round(options.valid_share * len(order))
    order = np.roll(order, -lower)
    tested, validated = order[: upper - lower], order[upper - lower : upper - lower + valid_count]
    trained = order[upper - lower + valid_count :]
    if not (len(tested) and len(validated) and len(trained)):
        raise UserError(
            f"{len(able)} users with at least {options.min_history + options.targets} interactions cannot be split "
            f"into {parts} folds with {options.valid_share:g} of them for validation.",
            "Pass fewer --folds, another --valid-share, a smaller --min-history or fewer --targets.",
        )
    shape = {"history": options.history, "targets": options.targets, "stride": options.stride}

    def spans(users: np.ndarray, last_only: bool) -> SlidingWindows:
        last = np.zeros_like(end)
        last[users] = end[users]
        first = np.maximum(_earliest(begin, end, options), end - options.targets if last_only else 0)
        return slide(log, first, last, **shape)

    windows = {"train": spans(trained, False), "valid": spans(validated, True), "test": spans(tested, True)}
    is_trained = np.zeros(len(log.users), dtype=bool)
    is_trained[trained] = True
    return _without_dropped(log, windows, is_trained[log.user], {"folds": parts, "fold": options.fold})


def leave_one_out(log: EventLog, options: PrepareOptions, seed: int) -> Splits:
    """Test each user's last m events in one row, validate on the m before, train on the rest."""
    return _last(log, options, options.targets)


def last_n(log: EventLog, options: PrepareOptions, seed: int) -> Splits:
    """Test each user's last n events, in as many rows as they give at the stride, validate on the n before them."""
    assert options.held_out is not None  # `resolve` sees to it
    return _last(log, options, options.held_out)


def _last(log: EventLog, options: PrepareOptions, held_out: int) -> Splits:
    """Test each user's last `held_out` events, validate on as many before them, train on the rest."""
    begin, end = log.start[:-1], log.start[1:]
    able = end - begin >= options.min_history + 2 * held_out
    shape = {"history": options.history, "targets": options.targets, "stride": options.stride}
    none = np.where(able, 0, len(log) + held_out)  # pushes the first target behind the last one
    windows = {
        "train": slide(log, _earliest(begin, end - 2 * held_out, options) + none, end - 2 * held_out, **shape),
        "valid": slide(log, end - 2 * held_out + none, end - held_out, **shape),
        "test": slide(log, end - held_out + none, end, **shape),
    }
    position = np.arange(len(log))
    training = position < np.repeat(end - 2 * held_out, end - begin)
    return _without_dropped(log, windows, training, {})


def split_by_files(log: EventLog, options: PrepareOptions, seed: int) -> Splits:
    """Split as the source's files say: what they hold out is held out, and nothing else.

    Where every user's interactions of valid come after those of training and those of test after both, a history is
    what its user had before the target, as with the splits above. Where they do not (a random split), or there are no
    times, the history of a held-out row is the last training interactions of its user, and of several targets those of
    one row follow each other in time. Without a file of valid, the latest training interactions validate.

    Raises:
        UserError: the files say no split, or no validation interactions can be carved out.
    """
    if log.split is None:
        others = ", ".join(name for name in SPLITTERS if name != "provided")
        raise UserError(
            "--split provided needs a source of ready-made windows, or files that say their split.",
            f"Pass --split {others}.",
        )
    facts: dict[str, Any] = {}
    if not (log.split == 1).any():
        log, facts["valid_from"] = _with_valid(log, options)
    assert log.split is not None
    within = np.diff(log.sequence) == 0
    in_time = bool((np.diff(log.time)[within] >= 0).all() and log.time.min() < log.time.max())
    begin, end = log.start[:-1], log.start[1:]
    first = begin + _per_sequence(log, log.split == 0)
    second = first + _per_sequence(log, log.split == 1)
    earliest = _earliest(begin, end if in_time else first, options)
    shape = {"history": options.history, "targets": options.targets}
    windows = {"train": slide(log, earliest, first, stride=options.stride, **shape)}
    for name, lower, upper in (("valid", first, second), ("test", second, end)):
        if in_time:
            windows[name] = slide(log, np.maximum(earliest, lower), upper, stride=options.stride, **shape)
        else:
            able = first - begin >= options.min_history
            part = slide(log, np.where(able, lower, upper), upper, stride=options.targets, **shape)
            hi = first[log.sequence[part.cut]]
            lo = np.maximum(begin[log.sequence[part.cut]], hi - options.history)
            windows[name] = replace(part, lo=lo, hi=hi)
    facts["files_split_in_time"] = in_time
    facts["held_out_without_row"] = {
        name: int((log.split == code).sum() - len(sorted_unique(windows[name].target_positions.ravel())))
        for code, name in enumerate(SPLITS)
        if code
    }
    return replace(_without_dropped(log, windows, log.split == 0, facts), as_given=SPLITS[1:])


def _with_valid(log: EventLog, options: PrepareOptions) -> tuple[EventLog, float]:
    """Let the latest training interactions validate; the log, whose order stays, and the time from which they do.

    Raises:
        UserError: their times do not tell which are the latest.
    """
    assert log.split is not None
    times = log.time[log.split == 0]
    cut = np.quantile(times, 1 - options.valid_share, method="higher") if len(times) else 0.0
    split = np.where((log.split == 0) & (log.time >= cut), np.int8(1), log.split)
    if not (split == 0).any():
        raise UserError(
            "No validation interactions can be carved out of the training file by time: its times are all alike.",
            "Give a file of validation interactions, such as x.valid.inter.",
        )
    return replace(log, split=split), float(cut)


def as_provided(log: EventLog, options: PrepareOptions, split_of: np.ndarray) -> Splits:
    """Take ready-made windows; without a validation file, the latest training windows validate.

    Args:
        log: one sequence a window.
        options: history, targets, valid_share.
        split_of: [S] 0 train, 1 valid, 2 test.

    Raises:
        UserError: no validation windows can be carved out.
    """
    facts: dict[str, Any] = {}
    long_enough = np.diff(log.start) >= options.min_history + options.targets
    if not (split_of == 1).any():
        when = log.time[log.start[1:] - 1]  # no sequence is empty
        train_times = when[(split_of == 0) & long_enough]
        cut = np.quantile(train_times, 1 - options.valid_share, method="higher") if len(train_times) else 0.0
        split_of = np.where((split_of == 0) & (when >= cut), 1, split_of)
        facts["valid_from"] = float(cut)
        if not (split_of == 0).any():
            raise UserError(
                "No validation windows can be carved out of the training windows by time: their times are all alike.",
                "Give a valid.csv.",
            )
    windows = {
        name: each_sequence(
            log, np.flatnonzero((split_of == code) & long_enough), history=options.history, targets=options.targets
        )
        for code, name in enumerate(SPLITS)
    }
    facts["windows_too_short"] = int((~long_enough).sum())
    return replace(_without_dropped(log, windows, (split_of == 0)[log.sequence], facts), as_given=SPLITS)


def _earliest(begin: np.ndarray, end: np.ndarray, options: PrepareOptions) -> np.ndarray:
    """[S] position of the first target that a window may have, in lives from `begin` to `end`."""
    if not options.full_windows:
        return begin + options.min_history
    return begin + np.clip(end - begin - options.targets, options.min_history, options.history)


def _per_sequence(log: EventLog, events: np.ndarray) -> np.ndarray:
    """[S] how many of some events [E] (bool) each sequence has."""
    return np.bincount(log.sequence[events], minlength=len(log.owner))


def _without_dropped(
    log: EventLog, windows: dict[str, SlidingWindows], training: np.ndarray, facts: dict[str, Any]
) -> Splits:
    """Count the users without any window and leave their interactions out of training."""
    has_window = np.zeros(len(log.users), dtype=bool)
    for part in windows.values():
        has_window[part.user] = True
    facts["users_per_split"] = {name: len(sorted_unique(part.user)) for name, part in windows.items()}
    return Splits(windows, training & has_window[log.user], int((~has_window).sum()), facts)


SPLITTERS = {
    "time": split_by_time,
    "user": split_by_user,
    "leave-one-out": leave_one_out,
    "last-n": last_n,
    "provided": split_by_files,
}
"""How interactions are split; ready-made windows go through `as_provided`."""
