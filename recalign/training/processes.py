"""Which of several training processes this one is."""

from __future__ import annotations

from torch import distributed


def process() -> tuple[int, int]:
    """Return this process's rank and how many processes there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
