"""What an evaluation came from, as far as its folders are still there: dataset, training runs, predictions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import join, quote
from typing import Any

from recalign.comparison.evaluations import Evaluation
from recalign.errors import UserError
from recalign.runs.predictions import PREDICTIONS_FILE
from recalign.workspace import RunFolder, file_hash

LOG_FILE = "log.jsonl"
TRAINING = ("sft", "align")


@dataclass(frozen=True)
class TrailStep:
    """One run that an evaluation rests on.

    Args:
        folder: the run's.
        record: its run.json.
    """

    folder: Path
    record: Mapping[str, Any]

    @property
    def command(self) -> str:
        """The subcommand that made it."""
        return str(self.record.get("command", ""))

    @property
    def options(self) -> Mapping[str, Any]:
        """What it was asked for."""
        return dict(self.record.get("options") or {})

    @property
    def invoked(self) -> tuple[str, str] | None:
        """What was typed, as one line, and in which folder; None where a program called the command."""
        told = self.record.get("invoked")
        if not isinstance(told, Mapping) or not isinstance(told.get("arguments"), list):
            return None
        return join(["recalign", *map(str, told["arguments"])]), str(told.get("folder", ""))


@dataclass(frozen=True)
class Trail:
    """The runs that one evaluation rests on; each is None, or missing, where its folder is gone.

    Args:
        data: the dataset's.
        training: from the first to the last, whose model was decoded.
        predictions: what was evaluated.
        evaluation: the evaluation's own.
    """

    data: TrailStep | None
    training: tuple[TrailStep, ...]
    predictions: TrailStep | None
    evaluation: TrailStep

    @property
    def steps(self) -> tuple[TrailStep, ...]:
        """All of them, in the order in which they were made."""
        found = (self.data, *self.training, self.predictions, self.evaluation)
        return tuple(step for step in found if step is not None)


def trail_of(run: Evaluation) -> Trail:
    """Follow an evaluation back to the dataset."""
    predictions = _step(predictions_of(run))
    training: list[TrailStep] = []
    model = predictions.options.get("model") if predictions else run.results.get("options", {}).get("model")
    while (step := _step(model)) and step.command in TRAINING and step.folder not in [each.folder for each in training]:
        training.insert(0, step)
        model = step.options.get("model")
    evaluation = TrailStep(run.folder, _record(run.folder))
    return Trail(_step(run.results["data"].get("path")), tuple(training), predictions, evaluation)


def predictions_of(run: Evaluation) -> Path | None:
    """Find the folder of the predictions that were evaluated, if they are still the ones that were."""
    named = run.results.get("predictions")
    for folder in [Path(str(named))] * (named is not None) + [run.folder.parent]:
        file = folder / PREDICTIONS_FILE
        measured = _record(run.folder).get("inputs", {}).get("predictions")
        if file.is_file() and measured in (None, file_hash(file)):
            return folder
    return None


def read_log(step: TrailStep) -> list[dict[str, Any]]:
    """Read the lines of a training's log, in order; a line that was cut off is left out, a missing log is empty."""
    try:
        text = (step.folder / LOG_FILE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    lines = []
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            lines.append(record)
    return lines


def commands(trails: Iterable[Trail]) -> dict[str, list[str]]:
    """Gather what was typed to make them: folder, quoted for a shell -> distinct lines, as the runs began."""
    steps = {step.folder: step for trail in trails for step in trail.steps}
    found: dict[str, list[str]] = {}
    for step in sorted(steps.values(), key=lambda step: float(step.record.get("started") or 0.0)):
        if step.invoked is not None:
            line, folder = step.invoked
            lines = found.setdefault(quote(folder), [])
            if line not in lines:
                lines.append(line)
    return found


def _step(folder: object) -> TrailStep | None:
    """Open a run folder, if it is one."""
    path = Path(str(folder)) if folder is not None else None
    record = _record(path) if path is not None and path.is_dir() else {}
    return TrailStep(path, record) if path is not None and record else None


def _record(folder: Path) -> dict[str, Any]:
    """Read a run.json; one that is broken is no reason to report less of the rest."""
    try:
        return RunFolder(folder).record
    except UserError:
        return {}
