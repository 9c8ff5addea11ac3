"""What training steps cost: rows and tokens a second, memory, time left."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from recalign.runs.cost import MemoryWatch
from recalign.training.processes import sum_over_processes


@dataclass
class Work:
    """What a step has run through the policy so far: every token once, padding left out.

    Attributes:
        rows: training rows, or prompts.
        tokens: of prompts, each once, and of what follows them.
    """

    rows: int = 0
    tokens: int = 0

    def add(self, prompts: Sequence[np.ndarray], continued: int) -> None:
        """Count prompts and the tokens that follow them."""
        self.rows += len(prompts)
        self.tokens += sum(map(len, prompts)) + continued


@dataclass
class Spent:
    """What some updates cost: their number, seconds, rows and tokens over all processes, most memory held (MB)."""

    updates: int = 0
    seconds: float = 0.0
    rows: float = 0.0
    tokens: float = 0.0
    peak_memory_mb: float = 0.0

    def add(self, other: Spent) -> None:
        """Count those of another stretch too."""
        self.updates += other.updates
        self.seconds += other.seconds
        self.rows += other.rows
        self.tokens += other.tokens
        self.peak_memory_mb = max(self.peak_memory_mb, other.peak_memory_mb)

    def figures(self) -> dict[str, float]:
        """Return `tokens_per_second`, `rows_per_second`, `rows_per_update`, `seconds_per_update`, `peak_memory_mb`."""
        seconds = self.seconds or float("inf")
        return {
            "tokens_per_second": self.tokens / seconds,
            "rows_per_second": self.rows / seconds,
            "rows_per_update": self.rows / max(self.updates, 1),
            "seconds_per_update": self.seconds / max(self.updates, 1),
            "peak_memory_mb": self.peak_memory_mb,
        }


@dataclass
class Meter:
    """Measures updates, from their first batch to the optimizer's step; validations and checkpoints lie between them.

    Args:
        device: where the model lies.
        work: what the step counts.
    """

    device: torch.device
    work: Work
    total: Spent = field(default_factory=Spent)
    recent: Spent = field(default_factory=Spent)

    def __post_init__(self) -> None:
        self._memory = MemoryWatch(self.device)
        self._started = time.perf_counter()
        self._before = (0, 0)

    def begin(self) -> None:
        """Begin an update."""
        self._memory.begin()
        self._before = (self.work.rows, self.work.tokens)
        self._started = time.perf_counter()

    def end(self) -> None:
        """End it; its figures join the recent ones."""
        rows, tokens = self.work.rows - self._before[0], self.work.tokens - self._before[1]
        seconds = time.perf_counter() - self._started
        self.recent.add(Spent(1, seconds, rows, tokens, self._memory.peak_mb()))

    def report(self, updates_left: int) -> dict[str, float]:
        """Return the figures of the updates since the last report, and `seconds_left` at the mean pace of all.

        Every process asks for it: rows and tokens are those of all of them.

        Args:
            updates_left: number of updates that are still to come.
        """
        if not self.recent.updates:
            return {}
        self.recent.rows, self.recent.tokens = sum_over_processes([self.recent.rows, self.recent.tokens], self.device)
        self.total.add(self.recent)
        figures, self.recent = self.recent.figures(), Spent()
        return {**figures, "seconds_left": updates_left * self.total.seconds / self.total.updates}


def cost_line(figures: Mapping[str, float]) -> str:
    """Write what a training cost as one line for people."""
    return (
        f"A step: {figures['seconds_per_update']:.3g} s, {figures['tokens_per_second']:,.0f} tokens and "
        f"{figures['rows_per_second']:,.1f} rows a second, at most {figures['peak_memory_mb']:,.0f} MB of memory."
    )
