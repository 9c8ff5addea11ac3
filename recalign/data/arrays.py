"""Small vectorised helpers on flat arrays."""

from __future__ import annotations

import numpy as np


def ranges(first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Concatenate first[i], first[i]+1, ... of count[i] numbers each."""
    offset = np.cumsum(count) - count
    return np.arange(int(count.sum())) + np.repeat(first - offset, count)


def sorted_unique(values: np.ndarray) -> np.ndarray:
    """Distinct values in order; sorting is several times faster on millions of integers than np.unique's hashing."""
    ordered = np.sort(values)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(ordered) else ordered


def is_member(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Whether each value is among sorted distinct ones; the shape of `values`."""
    if not len(ordered):
        return np.zeros(values.shape, dtype=bool)
    place = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return ordered[place] == values


def renumber(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop unused codes: the codes that occur, in order, and for each element its place among them."""
    occurs = np.bincount(codes) > 0
    return np.flatnonzero(occurs), (np.cumsum(occurs) - 1)[codes]


def previous_same(group: np.ndarray, value: np.ndarray) -> np.ndarray:
    """[E] position of the element before with the same group and value, or -1; both are not negative."""
    previous = np.full(len(value), -1)
    key = group * (int(value.max(initial=0)) + 1) + value
    order = np.argsort(key, kind="stable")
    same = np.flatnonzero(key[order][1:] == key[order][:-1])
    previous[order[same + 1]] = order[same]
    return previous
