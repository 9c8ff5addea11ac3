"""Which examples each process works on: an update's examples are dealt out evenly, every one once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from torch.utils.data import Sampler

from recalign.training.offline.examples import EpochSampler


class Batches(Protocol):
    """The batches of one process, update by update, as lists of what its examples are looked up by.

    Attributes:
        epoch: that is iterated over.
    """

    epoch: int

    def __iter__(self) -> Iterator[list[Any]]: ...  # noqa: D105

    def __len__(self) -> int: ...  # noqa: D105


class DealtBatches(Sampler[list[tuple[int, int]]]):
    """Deals the examples of every update out to the processes; all have as many batches, none of them empty.

    Differs from accelerate's way, which fills an epoch's last batches with examples of its beginning: here they are
    smaller. Examples that are too few for all processes join the update before them.

    Args:
        order: of the examples; which of them make an update does not depend on the number of processes.
        rows: examples of an update, over all processes.
        parts: batches of an update and process.
        rank: of this process.
        processes: how many there are.
    """

    def __init__(self, order: EpochSampler, rows: int, parts: int, rank: int = 0, processes: int = 1) -> None:
        self.order, self.rows, self.parts, self.rank, self.processes = order, rows, parts, rank, processes

    @property
    def epoch(self) -> int:
        """The epoch that is iterated over."""
        return self.order.epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self.order.epoch = epoch

    def __len__(self) -> int:
        return sum(rounds for _, _, rounds in self._updates())

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        addresses = list(self.order)
        for start, stop, rounds in self._updates():
            dealt = np.array_split(np.arange(start, stop), rounds * self.processes)
            for part in dealt[self.rank :: self.processes]:
                yield [addresses[place] for place in part]

    def _updates(self) -> Iterator[tuple[int, int, int]]:
        """Where each update's examples begin and end, and how many batches a process makes of them."""
        size, most = len(self.order), -(-self.rows // (self.parts * self.processes))
        full, rest = divmod(size, self.rows)
        joined = full > 0 and 0 < rest < self.processes
        stops = [self.rows * (number + 1) for number in range(full - joined)]
        if not stops or stops[-1] < size:
            stops.append(size)
        start = 0
        for stop in stops:
            count = stop - start
            rounds = min(self.parts, -(-count // (most * self.processes)), max(count // self.processes, 1))
            yield start, stop, rounds
            start = stop


class SharedUpdates(Sampler[list[int]]):
    """Hands the number of every update to every process: all of them work on one rollout.

    Args:
        updates: how many there are.
    """

    def __init__(self, updates: int) -> None:
        self.updates, self.epoch = updates, 0

    def __len__(self) -> int:
        return self.updates

    def __iter__(self) -> Iterator[list[int]]:
        return ([update] for update in range(self.updates))
