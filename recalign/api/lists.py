"""What metrics share: lists cut at k, distinct rows, and ragged arrays laid end to end.

No list is looked at on its own: the thousands of lists of a training step cost a few array operations.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recalign.api.base import INVALID
from recalign.api.metrics import ListBatch
from recalign.data.dataset import Row


@dataclass(frozen=True)
class CutLists:
    """N lists cut at k.

    Args:
        items: [N, k] item indices; INVALID where the text is no item, and beyond the list's end.
        counted: [N, k] True at the first position of an item; copies and invalid positions do not score.
        lengths: [N] positions that each list takes, at most k.
    """

    items: np.ndarray
    counted: np.ndarray
    lengths: np.ndarray


def cut_lists(lists: ListBatch, cutoff: int | None) -> CutLists:
    """Cut lists at `@k` (None: not at all) and mark the positions that may score."""
    items = lists.items if cutoff is None else lists.items[:, :cutoff]
    lengths = np.minimum(lists.lengths, items.shape[1])
    inside = np.arange(items.shape[1]) < lengths[:, None]  # [N, k]
    items = np.where(inside, items, INVALID)
    return CutLists(items, first_positions(items) & (items != INVALID), lengths)


def first_positions(items: np.ndarray) -> np.ndarray:
    """Mark the first occurrence of every value of a row: [N, k] -> bool [N, k]."""
    order = np.argsort(items, axis=1, kind="stable")
    ordered = np.take_along_axis(items, order, axis=1)
    first = np.ones(items.shape, dtype=bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    marks = np.empty_like(first)
    np.put_along_axis(marks, order, first, axis=1)
    return marks


def distinct_rows(rows: Sequence[Row]) -> tuple[list[Row], np.ndarray]:
    """Collapse runs of one and the same row, as the completions of a group share it.

    Returns:
        The U distinct rows, and for each of the N lists which of them it answers: int64 [N].
    """
    distinct: list[Row] = []
    index = np.empty(len(rows), dtype=np.int64)
    for position, row in enumerate(rows):
        if not distinct or row is not distinct[-1]:
            distinct.append(row)
        index[position] = len(distinct) - 1
    return distinct, index


def flatten(arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Lay U arrays end to end: their values, and bounds int64 [U + 1]: array u is values[bounds[u]:bounds[u + 1]]."""
    bounds = np.concatenate([[0], np.cumsum([len(array) for array in arrays])]).astype(np.int64)
    return (np.concatenate(arrays) if len(arrays) else np.empty(0)), bounds


@dataclass(frozen=True)
class Relevance:
    """The gains of U rows' distinct targets; of a target that occurs twice, the larger gain counts.

    Args:
        keys: sorted row * stride + item, one per distinct target.
        gains: the gain of each key.
        owners: the row of each key.
        stride: one more than the largest item index.
        count: U.
    """

    keys: np.ndarray
    gains: np.ndarray
    owners: np.ndarray
    stride: int
    count: int

    @classmethod
    def of(cls, rows: Sequence[Row], catalogue_size: int) -> Relevance:
        """Collect the targets of rows."""
        items, bounds = flatten([row.targets for row in rows])
        gains, _ = flatten([row.gains for row in rows])
        owners = np.repeat(np.arange(len(rows)), np.diff(bounds))
        keys = owners * catalogue_size + items.astype(np.int64)
        order = np.lexsort((gains, keys))
        keys, gains, owners = keys[order], gains[order].astype(np.float64), owners[order]
        last = np.append(keys[1:] != keys[:-1], True)[: len(keys)]
        return cls(keys[last], gains[last], owners[last], catalogue_size, len(rows))

    def at(self, lists: CutLists, index: np.ndarray) -> np.ndarray:
        """Gain at every position: float64 [N, k]; 0 for copies, invalid positions and items that are no target.

        Args:
            lists: N lists.
            index: [N] the row that each list answers.
        """
        if not len(self.keys):
            return np.zeros(lists.items.shape)
        wanted = index[:, None] * self.stride + lists.items  # [N, k]
        place = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where((self.keys[place] == wanted) & lists.counted, self.gains[place], 0.0)


def seeded_order(seed: int, row: Row, items: np.ndarray) -> np.ndarray:
    """Return a random place for each item of a row: the order that ties are broken by, wherever items are stored.

    Args:
        seed: of the draw.
        row: its index and user enter.
        items: [X] item indices.

    Returns:
        int64 [X], a permutation of 0..X-1 that depends on the seed, the row and the set of items.
    """
    user = zlib.crc32(row.user_id.encode())
    drawn = np.random.default_rng([seed % 2**32, row.index, user]).permutation(len(items))
    return drawn[np.argsort(np.argsort(items, kind="stable"), kind="stable")]
