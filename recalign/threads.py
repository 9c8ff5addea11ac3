"""How many threads computations on the CPU take: what the user asks for, or the cores that nobody else is using."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from recalign import console

WATCHED = 0.2
"""Seconds for which the cores are watched."""
BUSY = 50.0
"""Percent of the time, from which on a core counts as somebody else's."""
QUOTA = Path("/sys/fs/cgroup/cpu.max")
_asked: list[int | None] = [None]


def ask(threads: int | None) -> None:
    """Note what `--threads` says, for the models that are loaded from now on; None: nothing."""
    _asked[0] = threads


def usable_cores() -> int:
    """Return how many cores this process may use: by its affinity and by the quota of its container."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = QUOTA.read_text().split()
        return max(1, min(allowed, round(int(quota) / int(period))))
    except (OSError, ValueError):  # there is no container, or it sets no limit ("max")
        return allowed


def free_cores() -> int:
    """Watch the cores for a moment; return how many of the usable ones others leave idle, one at least."""
    import psutil

    busy = sum(percent >= BUSY for percent in psutil.cpu_percent(interval=WATCHED, percpu=True))
    return max(1, min(usable_cores(), (os.cpu_count() or 1) - busy))


def choose(*, small: bool) -> tuple[int, str]:
    """Choose the number of threads of a model on the CPU.

    Args:
        small: whether its matrices are too small to share out. At a width of 64, two threads on busy cores waited for
            each other at every operation and took 7 to 16 times as long as one.

    Returns:
        The number, and what decided it.
    """
    asked, stated = _asked[0], os.environ.get("OMP_NUM_THREADS", "")
    if asked is not None:
        return asked, "--threads"
    if stated.isdecimal() and int(stated) > 0:
        return int(stated), "OMP_NUM_THREADS"
    if small:
        return 1, "the model is small"
    free, usable = free_cores(), usable_cores()
    return free, f"{free} of {usable} cores are free" if free < usable else "all cores are free"


def use(*, small: bool) -> int:
    """Let PyTorch take as many threads as `choose` says, tell the user, and return the number."""
    import torch

    threads, why = choose(small=small)
    torch.set_num_threads(threads)
    _tell(threads, why)
    return threads


@cache
def _tell(threads: int, why: str) -> None:
    """Say it once, not for every model that is loaded."""
    console.say(f"CPU threads: {threads} ({why}); --threads sets their number.")
