"""What training steps cost: rows and tokens a second, seconds of each part, memory, time left."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from recalign.runs.cost import MemoryWatch
from recalign.training.processes import averaged, sum_over_processes

PARTS = ("data", "negatives", "rollout", "survey", "search", "forward", "reference", "backward", "optimizer")
"""Parts of a step, in the order in which they are told: loading examples, drawing rejected titles, sampling, looking at
an update's batches before its loss, searching beams for the loss, passes forward and of the reference policy, passes
backward, and the optimizer's step with the clipping of gradients."""


class Stopwatch:
    """Seconds by part of a step. One part runs at a time: what happens inside another one is charged to the inner."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._part: str | None = None
        self._since = 0.0

    def switch(self, part: str | None) -> None:
        """End the part that runs and begin another; None: nothing is charged from here on.

        A GPU works behind the program: what it was handed is waited for, so that it is charged to the part that
        handed it over.
        """
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self._part is not None:
            self.seconds[self._part] += now - self._since
        self._part, self._since = part, now

    @contextlib.contextmanager
    def timing(self, part: str) -> Iterator[None]:
        """Charge what happens inside to a part, and go on with the one that ran before."""
        outer = self._part
        self.switch(part)
        try:
            yield
        finally:
            self.switch(outer)


@dataclass
class Work:
    """What a step has run through the policy so far: every token once, padding left out.

    Attributes:
        rows: training rows, or prompts.
        tokens: of prompts, each once, and of what follows them.
        watch: the time that its parts took.
    """

    rows: int = 0
    tokens: int = 0
    watch: Stopwatch = field(default_factory=Stopwatch)

    def add(self, prompts: Sequence[np.ndarray], continued: int) -> None:
        """Count prompts and the tokens that follow them."""
        self.rows += len(prompts)
        self.tokens += sum(map(len, prompts)) + continued


@dataclass
class Spent:
    """What some updates cost: their number, seconds, rows and tokens over all processes, most memory held (MB).

    `parts` are the seconds of each part of a step.
    """

    updates: int = 0
    seconds: float = 0.0
    rows: float = 0.0
    tokens: float = 0.0
    peak_memory_mb: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)

    def add(self, other: Spent) -> None:
        """Count those of another stretch too."""
        self.updates += other.updates
        self.seconds += other.seconds
        self.rows += other.rows
        self.tokens += other.tokens
        self.peak_memory_mb = max(self.peak_memory_mb, other.peak_memory_mb)
        for part, seconds in other.parts.items():
            self.parts[part] = self.parts.get(part, 0.0) + seconds

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

    def seconds_a_step(self) -> dict[str, float]:
        """Return the mean seconds of each part of an update, in the order of `PARTS`."""
        return {part: self.parts[part] / max(self.updates, 1) for part in PARTS if self.parts.get(part)}


@dataclass
class Meter:
    """Measures updates, from the loading of their examples to the optimizer's step.

    Validations and checkpoints lie between them.

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
        self._before: tuple[int, int] = (0, 0)

    def begin(self) -> None:
        """Begin an update; what it does until somebody says otherwise is loading its examples."""
        self._memory.begin()
        self._before = (self.work.rows, self.work.tokens)
        self.work.watch.seconds.clear()
        self.work.watch.switch("data")
        self._started = time.perf_counter()

    def end(self) -> None:
        """End it; its figures join the recent ones."""
        rows, tokens = self.work.rows - self._before[0], self.work.tokens - self._before[1]
        self.work.watch.switch(None)
        seconds = time.perf_counter() - self._started
        self.recent.add(Spent(1, seconds, rows, tokens, self._memory.peak_mb(), dict(self.work.watch.seconds)))

    def report(self, updates_left: int) -> dict[str, float]:
        """Return the figures of the updates since the last report, and `seconds_left` at the mean pace of all.

        Every process asks for it: rows and tokens are those of all of them. `seconds_PART` are those of each part.

        Args:
            updates_left: number of updates that are still to come.
        """
        if not self.recent.updates:
            return {}
        self.recent.rows, self.recent.tokens = sum_over_processes([self.recent.rows, self.recent.tokens], self.device)
        self.recent.parts = averaged(self.recent.parts, 1.0)
        self.total.add(self.recent)
        figures = {
            **self.recent.figures(),
            **{f"seconds_{part}": value for part, value in self.recent.seconds_a_step().items()},
            "seconds_left": updates_left * self.total.seconds / self.total.updates,
        }
        self.recent = Spent()
        return figures


def seconds_by_part(log: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the mean seconds that an update spends on each part, those before an interruption included.

    Args:
        log: records of a training's log.
    """
    sums, updates = dict.fromkeys(PARTS, 0.0), 0
    for record in log:
        if "seconds_per_update" in record:  # of the updates since the record before
            for part in PARTS:
                sums[part] += record.get(f"seconds_{part}", 0.0) * (record["step"] - updates)
            updates = record["step"]
    return {part: total / updates for part, total in sums.items() if total}


def cost_line(figures: Mapping[str, float], parts: Mapping[str, float]) -> str:
    """Write what a training cost as one line for people.

    Args:
        figures: as `Spent.figures` returns them.
        parts: seconds of each part of a step.
    """
    spent = ", ".join(f"{part} {value:.2g}" for part, value in parts.items())
    return (
        f"A step: {figures['seconds_per_update']:.3g} s{f' ({spent})' if spent else ''}, "
        f"{figures['tokens_per_second']:,.0f} tokens and "
        f"{figures['rows_per_second']:,.1f} rows a second, at most {figures['peak_memory_mb']:,.0f} MB of memory."
    )
