"""Trackers of experiments: one run a training, grouped by recipe, with the same figures and sample lists as tables.

transformers' own callbacks send the figures of the log. What they leave open is done here: how a run is called, what
groups it, where it goes on after an interruption, when it ends, and tables of sample lists.
"""

from __future__ import annotations

import contextlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.integrations import INTEGRATION_TO_CALLBACK

from recalign import console
from recalign.console import label, markdown
from recalign.reading import parse_json
from recalign.workspace import RUN_FILE, RunFolder, content_hash

FOLDER = "tensorboard"
"""Folder of TensorBoard's files within a run."""
PROJECT = "recalign"
"""Project of runs that no recipe made, where a tracker has projects."""
TABLE = "sample lists"
COLUMNS = ("update", "user", "had, latest last", "is recommended", "chose, not in the list")
BY_NAME = frozenset({"trackio"})
"""Trackers that take a run of the same name for the same run."""
LEVELS = 3
"""Folders from a run's down to that of a training within it, at most: rounds, number, stage."""


@dataclass(frozen=True)
class TrackedRun:
    """How trackers know a training.

    Args:
        name: of the recipe's step, else of the run folder; a stage of a run has its place behind it.
        group: the recipe's name; empty without one.
        key: the same when the training goes on after an interruption, and no other training's.
        folder: the training's.
    """

    name: str
    group: str
    key: str
    folder: Path

    @classmethod
    def of(cls, folder: Path) -> TrackedRun:
        """Return how the training in a folder is known, by the run.json there or above."""
        above = [folder, *folder.resolve().parents[:LEVELS]]
        home = next((each for each in above if (each / RUN_FILE).is_file()), folder).resolve()
        record = RunFolder(home).record
        claim = record.get("claim", {})
        stage = folder.resolve().relative_to(home).parts
        key = content_hash({"folder": str(home), "started": record.get("started", 0.0), "stage": list(stage)})
        return cls("/".join([claim.get("step", home.name), *stage]), claim.get("recipe", ""), key[:16], folder)

    def called(self, names: Sequence[str]) -> str:
        """Return what the run is called in trackers of these names; those that know runs by name get its key too."""
        return f"{self.name} {self.key[:6]}" if BY_NAME.intersection(names) else self.name

    @property
    def project(self) -> str:
        """The recipe, which groups the runs of trackers that know nothing but projects."""
        return self.group or PROJECT


class Tracker(ABC):
    """What transformers' callback for one tracker leaves open.

    Args:
        callback: it.
        run: what is tracked.
    """

    def __init__(self, callback: Any, run: TrackedRun) -> None:
        self.callback, self.run = callback, run

    def variables(self) -> Mapping[str, str]:
        """Return environment variables that the tracker reads while it begins; the user's own go first."""
        return {}

    @abstractmethod
    def begin(self, update: int) -> None:
        """Prepare a run; called before the callback's own beginning.

        Args:
            update: the last one before an interruption; 0: the run is new.
        """

    @abstractmethod
    def show(self, rows: Sequence[Sequence[Any]], update: int) -> None:
        """Send a table.

        Args:
            rows: with `COLUMNS`.
            update: after which it was made.
        """

    @abstractmethod
    def end(self) -> None:
        """End the run, however the training ended, where the callback may have left it open."""


class TensorBoard(Tracker):
    """A folder of event files in each run; `tensorboard --logdir runs/RECIPE` shows all of a recipe."""

    def begin(self, update: int) -> None:
        """Write to the run's own folder; what an interrupted run wrote after its last checkpoint is forgotten."""
        package = "torch.utils.tensorboard" if find_spec("tensorboard") else "tensorboardX"
        asked = os.environ.get("TENSORBOARD_LOGGING_DIR")
        shared = Path(asked).expanduser() / self.run.group / self.run.name if asked else None
        purge = update + 1 if update else None
        folder = str(shared or self.run.folder / FOLDER)
        self.callback.tb_writer = import_module(package).SummaryWriter(log_dir=folder, purge_step=purge)

    def show(self, rows: Sequence[Sequence[Any]], update: int) -> None:
        """Write the table as Markdown."""
        self.callback.tb_writer.add_text(TABLE, markdown_table(rows), update)

    def end(self) -> None:
        """Close the files."""
        if self.callback.tb_writer is not None:
            self.callback.tb_writer.close()


class Wandb(Tracker):
    """A run of Weights & Biases; one that the user opened before is left open."""

    def begin(self, update: int) -> None:
        """Look whether somebody has opened a run."""
        import wandb

        self.opened_by_user = wandb.run is not None

    def variables(self) -> Mapping[str, str]:
        """Return project, group and identity of the run."""
        group = {"WANDB_RUN_GROUP": self.run.group} if self.run.group else {}
        same = {"WANDB_RUN_ID": self.run.key, "WANDB_RESUME": "allow"}
        quiet = {"WANDB_CONSOLE": "off"} if console.interactive() else {}  # frames of a panel are no log
        return {"WANDB_PROJECT": PROJECT, **group, **same, **quiet}

    def show(self, rows: Sequence[Sequence[Any]], update: int) -> None:
        """Log a wandb.Table."""
        import wandb

        table = wandb.Table(columns=list(COLUMNS), data=[list(row) for row in rows])
        wandb.log({TABLE: table, "train/global_step": update})

    def end(self) -> None:
        """Finish the run, which the callback leaves open: the next step of a recipe gets one of its own."""
        import wandb

        if wandb.run is not None and not self.opened_by_user:
            wandb.finish()


class Mlflow(Tracker):
    """A run of MLflow, in an experiment of the recipe's name; one that the user opened before is left open."""

    def begin(self, update: int) -> None:
        """Look whether somebody has opened a run; add tags to the user's."""
        import mlflow

        tags = parse_json(os.environ.get("MLFLOW_TAGS") or "{}", "MLFLOW_TAGS")
        ours = {"step": self.run.name, **({"recipe": self.run.group} if self.run.group else {})}
        os.environ["MLFLOW_TAGS"] = json.dumps({**ours, **tags})
        self.opened_by_user = mlflow.active_run() is not None

    def variables(self) -> Mapping[str, str]:
        """Return the experiment; no bars are drawn for tables."""
        return {"MLFLOW_EXPERIMENT_NAME": self.run.project, "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}

    def show(self, rows: Sequence[Sequence[Any]], update: int) -> None:
        """Log the table; those of all validations are one artifact."""
        import mlflow

        columns = {name: [row[place] for row in rows] for place, name in enumerate(COLUMNS)}
        mlflow.log_table(data=columns, artifact_file="sample_lists.json")

    def end(self) -> None:
        """End the run, which the callback leaves open after an interruption."""
        import mlflow

        if mlflow.active_run() is not None and not self.opened_by_user:
            mlflow.end_run()


class Trackio(Tracker):
    """A run of Trackio, in a project of the recipe's name; it goes on where there is one of its name."""

    def begin(self, update: int) -> None:
        """Nothing is to be prepared."""

    def show(self, rows: Sequence[Sequence[Any]], update: int) -> None:
        """Log a trackio.Table."""
        import trackio

        table = trackio.Table(columns=list(COLUMNS), data=[list(row) for row in rows])
        trackio.log({TABLE: table, "train/global_step": update})

    def end(self) -> None:
        """Finish the run, which the callback leaves open after an interruption."""
        import trackio

        if trackio.context_vars.current_run.get() is not None:
            trackio.finish()


TRACKERS: dict[str, type[Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "mlflow": Mlflow,
    "trackio": Trackio,
}
"""Those that get tables and groups; transformers' others get the figures alone."""


class Tracking:
    """The trackers of one training.

    Args:
        names: of `--report-to`.
        run: what is tracked.
        callbacks: of the trainer, transformers' own for the trackers among them.
    """

    def __init__(self, names: Sequence[str], run: TrackedRun, callbacks: Sequence[TrainerCallback]) -> None:
        mine = {type(callback): callback for callback in callbacks}
        self.trackers = [TRACKERS[name](mine[INTEGRATION_TO_CALLBACK[name]], run) for name in names if name in TRACKERS]
        self._failed: set[Tracker] = set()

    @contextlib.contextmanager
    def running(self, update: int) -> Iterator[None]:
        """Track what happens inside.

        Args:
            update: the last one before an interruption; 0: the run is new.
        """
        before = dict(os.environ)
        with contextlib.ExitStack() as stack:
            stack.callback(_restore, before)
            for tracker in self.trackers:
                for name, value in tracker.variables().items():
                    os.environ.setdefault(name, value)
                tracker.begin(update)
                stack.callback(tracker.end)
            yield

    def show(self, samples: Sequence[Mapping[str, Any]], update: int) -> None:
        """Send sample lists to the trackers. A table is not worth a training: one that fails is told, once.

        Args:
            samples: as `example_list` returns them.
            update: after which they were decoded.
        """
        rows = [table_row(sample, update) for sample in samples]
        for tracker in self.trackers if rows else ():
            try:
                tracker.show(rows, update)
            except Exception as error:  # of a third party's package, or of the way to its server
                if tracker not in self._failed:
                    console.warn(f"{type(tracker).__name__} took no sample lists: {error}")
                self._failed.add(tracker)


def _restore(environment: Mapping[str, str]) -> None:
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)


def table_row(sample: Mapping[str, Any], update: int) -> list[Any]:
    """Return the cells of a sample list, by `COLUMNS`; lists have a line an item, hits are marked."""
    recommended = [
        f"{entry['rank']}. {label(entry['title'] or '(no item)')}{' (hit)' if entry['hit'] else ''}"
        for entry in sample["recommended"]
    ]
    lists = (map(label, sample["history"]), recommended, map(label, sample["missed"]))
    return [update, label(sample["user_id"]), *("\n".join(each) for each in lists)]


def markdown_table(rows: Sequence[Sequence[Any]]) -> str:
    """Write a table with `COLUMNS` as Markdown."""
    cells = [[markdown(str(cell)).replace("\n", "<br>") for cell in row] for row in rows]
    lines = [COLUMNS, ["---"] * len(COLUMNS), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
