"""What a result cost: decoding speed, tokens, forward passes, peak memory, training time."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PEAK_OF_PROCESS = Path("/proc/self/clear_refs")
"""Where Linux is told to forget a process's peak (proc(5))."""
STATUS = Path("/proc/self/status")
"""Where it tells of it."""
COLUMNS = {
    "prompts_per_second": "prompts/s",
    "tokens_per_second": "tokens/s",
    "prompt_tokens": "prompt tokens",
    "completion_tokens": "completion tokens",
    "forward_passes": "forward passes",
    "peak_memory_mb": "peak memory (MB)",
    "decode_seconds": "decoding (s)",
    "training_seconds": "training (s)",
}
"""Key in `metrics.json` -> heading; a key is absent where it was not recorded."""


def read_cost(results: Mapping[str, Any], training_seconds: float | None) -> dict[str, float]:
    """Gather the cost of predictions.

    Args:
        results: of the run that made them; `seconds`, where it says them, are what it spent on training.
        training_seconds: of the run that trained the model, or None.
    """
    spent = dict(results.get("cost") or {})
    seconds = spent.pop("seconds", None)
    prompts = spent.get("prompts")
    cost = {key: float(spent[key]) for key in COLUMNS if spent.get(key) is not None}
    if seconds:
        cost["decode_seconds"] = float(seconds)
        if prompts:
            cost["prompts_per_second"] = prompts / seconds
    trained = results.get("seconds", training_seconds)
    return cost if trained is None else {**cost, "training_seconds": float(trained)}


def mean_of(figures: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Average the figures of several runs, key by key, over the runs that have the key."""
    gathered: dict[str, list[float]] = {}
    for run in figures:
        for key, value in run.items():
            gathered.setdefault(key, []).append(value)
    return {key: sum(values) / len(values) for key, values in gathered.items()}


def peak_memory_mb(device: torch.device) -> float:
    """Most memory held since a `MemoryWatch` began: of the GPU where the model lies on one, else of this process."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 2**20
    if (peak := _peak_told()) is not None:
        return peak
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _peak_told() -> float | None:
    """What Linux says of this process alone: `ru_maxrss` begins with the peak of the process that started it."""
    with contextlib.suppress(OSError, ValueError):
        for line in STATUS.read_text().splitlines():
            name, _, rest = line.partition(":")
            if name == "VmHWM":
                return int(rest.split()[0]) / 2**10
    return None


class MemoryWatch:
    """Watches how much memory a stretch of work holds at most.

    Args:
        device: where the model lies; the watch begins now.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.begin()

    def begin(self) -> None:
        """Forget what was held before."""
        if self.device.type == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            with contextlib.suppress(OSError):  # Linux counts from here on; others know the process's peak alone
                PEAK_OF_PROCESS.write_text("5")

    def peak_mb(self) -> float:
        """Return the most memory held since: on a GPU all that was allocated there at a time, else by this process.

        Systems other than Linux cannot forget an older peak: there it is an upper bound.
        """
        return peak_memory_mb(self.device)
