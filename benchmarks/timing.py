"""Paired timing: ours and the peer take turns in one process, so that the machine's moods hit both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
clock = CLOCKS["wall"]
"""What seconds are measured by; the processor's leave out the time that other programs take from it."""


def measure_by(name: str) -> None:
    """Choose what seconds are measured by, for both sides."""
    global clock  # noqa: PLW0603
    clock = CLOCKS[name]


@dataclass(frozen=True)
class Pairs:
    """Seconds of ours and of the peer, run by run.

    Args:
        ours: [R] seconds.
        peer: [R] seconds.
    """

    ours: list[float]
    peer: list[float]

    @property
    def ratio(self) -> float:
        """Median over the runs of the peer's time over ours."""
        return statistics.median(peer / ours for ours, peer in zip(self.ours, self.peer, strict=True))

    @property
    def seconds(self) -> tuple[float, float]:
        """Median seconds of ours and of the peer."""
        return statistics.median(self.ours), statistics.median(self.peer)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Run once; return the seconds and the result. Waits for the GPU where there is one."""
    started = now()
    result = work()
    return now() - started, result


def median_seconds(work: Callable[[], Any], repeats: int = 3) -> float:
    """Median seconds of some work, after a first run that is not counted."""
    work()
    return statistics.median(timed(work)[0] for _ in range(repeats))


def now() -> float:
    """The clock's seconds, when the GPU, where there is one, has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock()


def alternate(ours: Callable[[], Any], peer: Callable[[], Any], repeats: int, seconds: float = float("inf")) -> Pairs:
    """Time ours and the peer in turns, who goes first alternating too; call both once before, to warm up and compare.

    Args:
        ours: our work.
        peer: the peer's work.
        repeats: how many pairs.
        seconds: begin no further pair after this time.
    """
    started = time.perf_counter()
    mine: list[float] = []
    theirs: list[float] = []
    while len(mine) < repeats and (not mine or time.perf_counter() - started < seconds):
        turns = [(mine, ours), (theirs, peer)]
        for times, work in turns if len(mine) % 2 == 0 else reversed(turns):
            times.append(timed(work)[0])
    return Pairs(mine, theirs)
