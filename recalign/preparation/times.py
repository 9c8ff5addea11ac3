"""Times of interactions: their units, what range they span, which are hardly right, and which way a file runs."""

from __future__ import annotations

import time as clock
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from recalign.errors import UserError

DATED = 1e8
"""Numbers from here on are dates: in seconds since 1970 they are later than March 1973; below, they only order."""

UNITS = {"seconds": (DATED, 1.0), "milliseconds": (1e11, 1e3), "microseconds": (1e14, 1e6), "nanoseconds": (1e17, 1e9)}
"""Unit -> the number from which on times are taken to be in it, and how many of it are a second."""

FIRST_LIKELY = datetime(1990, 1, 1, tzinfo=UTC).timestamp()
DAY = 86_400.0
ONE_WAY = 0.9
"""Share of the rows followed by an earlier (later) one, from which on a file counts as newest (oldest) first."""

SAME_USER = 0.05
"""Share of rows followed by one of the same user, from which on only those tell which way a file runs."""


def in_seconds(time: np.ndarray) -> np.ndarray:
    """Bring times to seconds since 1970, each by its own size (`UNITS`); numbers too small for dates stay.

    Args:
        time: [E].
    """
    size = np.abs(time)
    if size.max(initial=0.0) < UNITS["milliseconds"][0]:
        return time
    bounds, parts = zip(*UNITS.values(), strict=True)
    return time / np.array([1.0, *parts])[np.digitize(size, bounds)]


def units_of(time: np.ndarray) -> dict[str, int]:
    """How many times are in each unit, by their size; `small` are those below `DATED`."""
    held = np.bincount(np.digitize(np.abs(time), [first for first, _ in UNITS.values()]), minlength=len(UNITS) + 1)
    return {name: int(count) for name, count in zip(("small", *UNITS), held, strict=True) if count}


def are_dates(time: np.ndarray) -> bool:
    """Whether most of the times are dates; else they are numbers that only order, such as those of rows."""
    return bool(np.count_nonzero(np.abs(time) >= DATED) > len(time) / 2)


def describe(time: np.ndarray) -> dict[str, Any]:
    """Say what times there are.

    Args:
        time: [E], at least one.

    Returns:
        `dates`: whether they are dates; `earliest` and `latest` (ISO dates, or the numbers). Of dates also `units`
        (unit -> how many; `small` are numbers below `DATED`), and how many are `before_1990` and `in_future` (more
        than a day from now), each in its own unit.
    """
    if not are_dates(time):
        return {"dates": False, "earliest": float(time.min()), "latest": float(time.max())}
    seconds = in_seconds(time)
    return {
        "dates": True,
        "earliest": iso(seconds.min()),
        "latest": iso(seconds.max()),
        "units": units_of(time),
        "before_1990": int(np.count_nonzero(seconds < FIRST_LIKELY)),
        "in_future": int(np.count_nonzero(seconds > clock.time() + DAY)),
    }


def iso(seconds: float) -> str:
    """The date of a time, such as 2014-03-01; beyond the calendar, the number."""
    try:
        return str((datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=float(seconds))).date())
    except OverflowError:
        return f"{seconds:g} s"


def row_order(user: np.ndarray, time: np.ndarray) -> dict[str, Any]:
    """Say which way a file runs, from rows that follow each other: those of one user, where enough do.

    Args:
        user: [E] user of each row, in the order of the file.
        time: [E].

    Returns:
        `order`: `newest first`, `oldest first` or `mixed`; `earlier_next`: the share of rows followed by an earlier
        one, among those followed by one of another time.
    """
    follows = user[1:] == user[:-1]
    if np.count_nonzero(follows) < SAME_USER * len(follows):
        follows = np.ones(len(follows), dtype=bool)
    falls = np.count_nonzero((time[1:] < time[:-1]) & follows)
    rises = np.count_nonzero((time[1:] > time[:-1]) & follows)
    share = falls / max(1, falls + rises)
    order = "mixed"
    if falls + rises:
        order = "newest first" if share >= ONE_WAY else "oldest first" if 1 - share >= ONE_WAY else "mixed"
    return {"order": order, "earlier_next": share}


def point_of_time(text: str, option: str) -> tuple[float, bool]:
    """Read a point of time.

    Args:
        text: a number, or an ISO date or date-time; UTC where it names no zone.
        option: where it was given.

    Returns:
        The number or the seconds since 1970, and whether it is a date.

    Raises:
        UserError: it is neither.
    """
    try:
        return float(text), False
    except ValueError:
        pass
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise UserError(
            f"{option} {text!r} is no point of time.",
            "Give a date, such as 2014-07-01, or a number as the file has it.",
        ) from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp(), True
