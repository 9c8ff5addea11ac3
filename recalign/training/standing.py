"""What a training has come to so far: what is shown while it runs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from recalign.training.training_options import LOWER_IS_BETTER
from recalign.training.validation import Validated

VALID = "eval_"
"""Before the names of validation figures in a trainer's log."""
SECONDS = "seconds_"
"""Before the names of the times that it took."""


@dataclass(frozen=True)
class Standing:
    """A training as it stands. Of one that exists only the courses grow, so that another thread may show it meanwhile.

    Args:
        title: what is trained.
        total: number of updates.
        best_on: validation figure that picks the best checkpoint.
        updates: how many are done.
        resumed_at: how many were done when this process began.
        began: when it began, by `time.monotonic`, seconds.
        activity: what goes on, where that is not training.
        figures: newest value of every figure of training.
        courses: figure -> (update, value) of each line of the log; those of validation begin with `eval_`.
        samples: a few rows' lists of the last validation, as `example_list` returns them.
        sampled_at: the update after which they were decoded.
    """

    title: str
    total: int
    best_on: str
    updates: int = 0
    resumed_at: int = 0
    began: float = field(default_factory=time.monotonic)
    activity: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    courses: Mapping[str, list[tuple[int, float]]] = field(default_factory=dict)
    samples: Sequence[Mapping[str, Any]] = ()
    sampled_at: int = 0

    def logged(self, line: Mapping[str, Any], update: int) -> Standing:
        """Return what it is after a line of the log.

        Args:
            line: figure -> value.
            update: the last one before it.
        """
        if "train_runtime" in line:  # the trainer's last words
            return self
        numbers = {name: value for name, value in line.items() if isinstance(value, int | float)}
        values = {name: float(value) for name, value in numbers.items() if name not in ("epoch", "step")}
        courses = {**{name: [] for name in values}, **self.courses}
        for name, value in values.items():
            courses[name].append((update, value))
        figures = {name: value for name, value in values.items() if not name.startswith(VALID)}
        before = self.figures
        if SECONDS + "per_update" in values:  # parts that these updates did not have
            before = {name: value for name, value in before.items() if not name.startswith(SECONDS)}
        return replace(self, courses=courses, figures={**before, **figures})

    def validated(self, found: Validated, update: int) -> Standing:
        """Return what it is after a validation; its figures come by the log."""
        return replace(self, samples=found.samples, sampled_at=update, activity="")

    @property
    def validations(self) -> dict[str, Sequence[tuple[int, float]]]:
        """The courses of validation figures, without `eval_`; the one that picks the checkpoint goes first."""
        found = {name.removeprefix(VALID): course for name, course in self.courses.items() if name.startswith(VALID)}
        return dict(sorted(found.items(), key=lambda pair: pair[0] != self.best_on))

    def best(self, name: str) -> tuple[int, float]:
        """Return the update and value of the best validation by a figure: the first one where several are equal."""
        sign = 1 if name in LOWER_IS_BETTER else -1
        return min(self.validations[name], key=lambda point: sign * point[1])

    def elapsed(self, now: float) -> float:
        """Return the seconds since this process began; `now` is by `time.monotonic`."""
        return now - self.began

    def left(self, now: float) -> float | None:
        """Return the seconds that are left at the pace so far, validations and checkpoints included; None: unknown."""
        done = self.updates - self.resumed_at
        return self.elapsed(now) / done * (self.total - self.updates) if done else None

    def note(self) -> str:
        """Write the newest figures as one line, for beside a progress bar."""
        told = {name: f"{self.figures[name]:.4g}" for name in ("loss", "reward") if name in self.figures}
        told |= {f"valid {name}": f"{course[-1][1]:.4g}" for name, course in self.validations.items()}
        if "tokens_per_second" in self.figures:
            told["tokens/s"] = f"{self.figures['tokens_per_second']:,.0f}"
            told["MB"] = f"{self.figures['peak_memory_mb']:,.0f}"
        return "  ".join(f"{name} {value}" for name, value in told.items())
