"""Windows over the event log: a history of up to n items and the m targets that follow, without a loop over rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from recalign.data.arrays import ranges
from recalign.preparation.events import EventLog


@dataclass(frozen=True)
class SlidingWindows:
    """W windows: history is log[lo:hi], targets are log[cut:cut+targets].

    Args:
        log: what the positions refer to.
        lo: [W] first position of the history.
        hi: [W] where the history ends (exclusive): at the first target, or before it where events of valid and test
            that no history shows lie between.
        cut: [W] position of the first target.
        targets: m, how many events are targets.
    """

    log: EventLog
    lo: np.ndarray
    hi: np.ndarray
    cut: np.ndarray
    targets: int

    def __len__(self) -> int:
        return len(self.cut)

    @property
    def user(self) -> np.ndarray:
        """[W] user index."""
        return self.log.user[self.cut]

    @property
    def target_positions(self) -> np.ndarray:
        """[W, m] positions of the targets."""
        return self.cut[:, None] + np.arange(self.targets)

    def take(self, index: np.ndarray | slice) -> SlidingWindows:
        """Some of the windows, by index or mask."""
        return replace(self, lo=self.lo[index], hi=self.hi[index], cut=self.cut[index])

    def at_most(self, count: int) -> SlidingWindows:
        """Keep `count` windows a user at most, evenly spread over its time, the last one among them.

        Without it the few users with long logs give most of the training rows, though each user is tested as often.
        """
        sizes = np.bincount(self.user, minlength=len(self.log.users))
        place, sizes = ranges(np.zeros_like(sizes), sizes), sizes[self.user]
        return self.take((place + 1) * count // sizes > place * count // sizes)

    def distinct(self) -> np.ndarray:
        """[W, m] bool, False where a target repeats an earlier target of its window: a list names no item twice."""
        items = self.log.item[self.target_positions]
        first = np.ones(items.shape, dtype=bool)
        for column in range(1, self.targets):
            first[:, column] = (items[:, :column] != items[:, column : column + 1]).all(axis=1)
        return first

    def repeats_past(self) -> np.ndarray:
        """[W] whether a target is an item that its sequence had anywhere before the end of the history."""
        return self._last_of_targets().max(axis=1) >= 0

    def repeats_history(self) -> np.ndarray:
        """[W] whether a target is among the items of the window's history."""
        return self._last_of_targets().max(axis=1) >= self.lo

    def _last_of_targets(self) -> np.ndarray:
        """[W, m] the last position before the end of the history that has the item of a target, or -1."""
        previous = self.log.previous[self.target_positions]
        while (later := previous >= self.hi[:, None]).any():
            previous[later] = self.log.previous[previous[later]]
        return previous

    def cut_in_tie(self) -> np.ndarray:
        """[W] whether interactions of one time stand on both sides of where the targets begin, or of where they end."""
        log, end = self.log, self.cut + self.targets
        inner = np.minimum(end, len(log) - 1)
        goes_on = (end < len(log)) & (log.sequence[inner] == log.sequence[self.cut])
        begins = log.tied[self.cut] & (log.time[self.cut - 1] == log.time[self.cut])
        return begins | (goes_on & log.tied[inner] & (log.time[end - 1] == log.time[inner]))


def slide(
    log: EventLog, first: np.ndarray, last: np.ndarray, *, history: int, targets: int, stride: int
) -> SlidingWindows:
    """Windows of every sequence whose targets lie in [first, last), aligned at the end: the last one ends at `last`.

    Args:
        log: the events.
        first: [S] the earliest position of a first target.
        last: [S] where the targets end (exclusive).
        history: n, items of the history at most.
        targets: m.
        stride: how many events a window starts before the next one of its sequence.
    """
    room = last - targets - first
    count = np.where(room >= 0, room // stride + 1, 0)  # [S]
    sequence = np.repeat(np.arange(len(count)), count)  # [W]
    backwards = ranges(np.zeros_like(count), count)
    number = count[sequence] - 1 - backwards  # oldest window first
    cut = last[sequence] - targets - number * stride
    return SlidingWindows(log, np.maximum(log.start[:-1][sequence], cut - history), cut, cut, targets)


def each_sequence(log: EventLog, sequences: np.ndarray, *, history: int, targets: int) -> SlidingWindows:
    """One window a sequence, its last: for ready-made windows.

    Args:
        log: the events.
        sequences: which sequences.
        history: n.
        targets: m.
    """
    cut = log.start[1:][sequences] - targets
    return SlidingWindows(log, np.maximum(log.start[:-1][sequences], cut - history), cut, cut, targets)
