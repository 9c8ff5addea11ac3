"""Interactions that a log has more than once, and those whose order their times do not tell."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from recalign.data.arrays import previous_same

Duplicates = Literal["keep", "drop", "first", "last"]


def without_repeats(
    user: np.ndarray, item: np.ndarray, time: np.ndarray, rating: np.ndarray | None, duplicates: Duplicates
) -> tuple[np.ndarray | None, dict[str, Any]]:
    """Count the interactions that repeat another one, and say which stay.

    Args:
        user: [E] user index; the events are sorted by user and time.
        item: [E] item index.
        time: [E].
        rating: [E] or None.
        duplicates: `keep` (all stay), `drop` (of exact duplicates one stays), `first` or `last` (of a user's
            interactions with an item the first or last one stays, as in RecBole's `rm_dup_inter`).

    Returns:
        [E] bool, which events stay, or None where all are kept; and the facts: `interactions_read` (E),
        `exact_duplicates` (events with the user, item, time and rating of an earlier one), `repeated_items` (other
        events of an item that the user had before), `duplicates_left_out`.
    """
    previous = previous_same(user, item)
    repeated = previous >= 0
    exact = exact_duplicates(user, item, time, rating, previous)
    facts = {
        "interactions_read": len(item),
        "exact_duplicates": int(exact.sum()),
        "repeated_items": int(repeated.sum() - exact.sum()),
        "duplicates_left_out": 0,
    }
    if duplicates == "keep":
        return None, facts
    if duplicates == "drop":
        stays = ~exact
    elif duplicates == "first":
        stays = ~repeated
    else:
        stays = np.ones(len(item), dtype=bool)
        stays[previous[repeated]] = False
    return stays, {**facts, "duplicates_left_out": int((~stays).sum())}


def exact_duplicates(
    user: np.ndarray, item: np.ndarray, time: np.ndarray, rating: np.ndarray | None, previous: np.ndarray
) -> np.ndarray:
    """[E] whether an earlier event has the same user, item, time and rating (none is the same as none).

    Args:
        user: [E], sorted by user and time.
        item: [E].
        time: [E].
        rating: [E], NaN where there is none; or None.
        previous: [E] as `previous_same`.
    """
    at_once = (previous >= 0) & (time[previous] == time)
    if rating is None or not at_once.any():
        return at_once
    member = at_once.copy()
    member[previous[at_once]] = True
    place = np.flatnonzero(member)
    keys = [place, rating[place], time[place], item[place], user[place]]
    order = np.lexsort(keys)
    same = np.ones(max(0, len(order) - 1), dtype=bool)
    for values in keys[1:]:
        ordered = values[order]
        same &= (ordered[1:] == ordered[:-1]) | ((ordered[1:] != ordered[1:]) & (ordered[:-1] != ordered[:-1]))
    exact = np.zeros(len(item), dtype=bool)
    exact[place[order][1:][same]] = True
    return exact


def tied(sequence: np.ndarray, item: np.ndarray, time: np.ndarray, rating: np.ndarray | None = None) -> np.ndarray:
    """[E] whether an event has the time of another one in its sequence, of another item or rating: no time orders them.

    Args:
        sequence: [E] sequence of each event, in time order.
        item: [E].
        time: [E].
        rating: [E], NaN where there is none; or None.
    """
    if len(item) == 0:
        return np.zeros(0, dtype=bool)
    goes_on = (sequence[1:] == sequence[:-1]) & (time[1:] == time[:-1])
    other = item[1:] != item[:-1]
    if rating is not None:
        other |= (rating[1:] != rating[:-1]) & ~(np.isnan(rating[1:]) & np.isnan(rating[:-1]))
    run = np.concatenate([[0], np.cumsum(~goes_on)])
    mixed = np.zeros(run[-1] + 1, dtype=bool)
    mixed[run[1:][goes_on & other]] = True
    return mixed[run]
