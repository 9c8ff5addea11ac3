"""Random numbers by address instead of by order, so that a result does not depend on what else is in the batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(value: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser (Steele, Lea and Flood, OOPSLA 2014): a bijection that scatters every bit."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def random_keys(seed: int, epoch: int, indices: Sequence[int] | np.ndarray, group_size: int) -> np.ndarray:
    """Return one key per completion: uint64 [P * G], from (seed, epoch, the row's index, place in the group)."""
    with np.errstate(over="ignore"):
        key = _mix(np.uint64(seed % 2**64) + _GOLDEN)
        key = _mix(key + _GOLDEN * np.uint64(epoch + 1))
        rows = _mix(key + _GOLDEN * (np.asarray(indices, dtype=np.uint64) + np.uint64(1)))
        group = np.arange(1, group_size + 1, dtype=np.uint64)
        return _mix(rows[:, None] + _GOLDEN * group).reshape(-1)


def answer_keys(seed: int, epoch: int, indices: np.ndarray, items: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return one key per answer: uint64 [N], from (seed, epoch, the row's index, the item, place in the group)."""
    with np.errstate(over="ignore"):
        keys = random_keys(seed, epoch, indices, 1)
        for address in (items, places):
            keys = _mix(keys + _GOLDEN * (np.asarray(address, dtype=np.uint64) + np.uint64(1)))
        return keys


def uniforms(keys: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return the `steps`-th number of each key: float64 [N] in [0, 1), 53 random bits."""
    with np.errstate(over="ignore"):
        bits = _mix(keys + _GOLDEN * (np.asarray(steps, dtype=np.uint64) + np.uint64(1)))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
