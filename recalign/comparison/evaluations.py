"""Evaluated runs on disk, and which of them belong together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from recalign import console
from recalign.errors import UserError
from recalign.evaluation.evaluate import BASELINES_FILE, METRICS_FILE, PER_USER_FILE, VARIATIONS_FILE
from recalign.reading import FileRecord, read_parquet, read_record
from recalign.runs.names import run_name
from recalign.runs.predictions import whole_ones
from recalign.workspace import RunFolder

if TYPE_CHECKING:
    import polars as pl

PER_RUN = {"seed", "data", "out", "resume", "overwrite", "json", "quiet", "fold"}
"""Options, at any depth, that may differ between the runs of one group."""


AGAIN = "Run `recalign eval --overwrite` again."


class Data(FileRecord):
    """What is relied on of the dataset in metrics.json."""

    hash: str
    measured_hash: str = ""


class Results(FileRecord):
    """What is relied on in metrics.json."""

    label: str
    split: str
    data: Data
    seed: int | None = None
    oracle: bool = False
    options: dict[str, Any] = {}
    metrics: dict[str, dict[str, Any]]
    corpus: dict[str, float | None] = {}
    higher_is_better: dict[str, bool | None] = {}
    baselines: dict[str, dict[str, Any]] = {}
    cost: dict[str, float] = {}


@dataclass(frozen=True)
class Evaluation:
    """One eval folder.

    Args:
        folder: where it is.
        results: its `metrics.json`.
    """

    folder: Path
    results: dict[str, Any]

    @classmethod
    def find(cls, path: Path, metrics: Collection[str] | None = None) -> Evaluation:
        """Open an eval folder, one of a decode folder, or one of the only evaluated decode folder of a model run.

        Of several evaluations of the same predictions the one in `eval` is taken, unless others hold more of the
        metrics that are asked for; those of some targets only have to be named.

        Raises:
            UserError: there is none, it is unfinished, or several predictions were evaluated.
        """
        path = Path(path)
        if not path.is_dir():
            raise UserError(f"{path} is no folder.", "Name eval, decode or model run folders.")
        if (path / METRICS_FILE).is_file():
            return cls._open(path)
        for pattern in (f"eval*/{METRICS_FILE}", f"*/eval*/{METRICS_FILE}"):
            found = [folder for folder in sorted(file.parent for file in path.glob(pattern)) if _of_all_targets(folder)]
            decoded = whole_ones(sorted({folder.parent for folder in found}))
            if len(decoded) > 1:
                names = ", ".join(str(folder) for folder in found)
                raise UserError(f"{path} holds several evaluations: {names}.", "Name one of them.")
            candidates = [cls._open(folder) for folder in found if folder.parent in decoded]
            if candidates:
                return max(candidates, key=lambda each: (each.holds(metrics or ()), each.folder.name == "eval"))
        raise UserError(f"{path} holds no evaluation.", f"Make one with `recalign eval {quote(str(path))}`.")

    @classmethod
    def _open(cls, folder: Path) -> Evaluation:
        if not RunFolder(folder).done:
            raise UserError(f"{folder} holds an unfinished evaluation.", "Run `recalign eval` again.")
        return cls(folder, read_record(folder / METRICS_FILE, Results, AGAIN))

    def holds(self, metrics: Collection[str]) -> int:
        """Return how many of some metrics it has, per-list and corpus-level ones."""
        return len({*self.results["metrics"], *self.results.get("corpus", {})}.intersection(metrics))

    @property
    def label(self) -> str:
        """Its name in tables: one printable line, whatever was asked for."""
        return console.label(self.results["label"])

    @property
    def higher_is_better(self) -> dict[str, bool | None]:
        """Metric -> whether higher values are better, as its plugin declared; None: neither direction is."""
        return dict(self.results.get("higher_is_better", {}))

    @property
    def data_hash(self) -> str:
        """Hash of the dataset that it was evaluated on."""
        return str(self.results["data"]["hash"])

    @property
    def measured_hash(self) -> str:
        """Hash of what it was measured by, the same for datasets that differ in identifiers or shown history only."""
        return str(self.results["data"].get("measured_hash", self.data_hash))

    @cached_property
    def frame(self) -> pl.DataFrame:
        """The per-user table, with the dataset's measured hash in the column `data`.

        Raises:
            UserError: the file is missing or unreadable, or lacks columns.
        """
        return self._read(PER_USER_FILE, ("row", "user_id"))

    @cached_property
    def baselines(self) -> dict[str, pl.DataFrame]:
        """The per-user tables of the baselines, by name; empty where they were not measured."""
        if not (self.folder / BASELINES_FILE).is_file():
            return {}
        table = self._read(BASELINES_FILE, ("baseline", "row", "user_id"))
        names = table["baseline"].unique(maintain_order=True).to_list()
        return {name: table.filter(table["baseline"] == name).drop("baseline") for name in names}

    @cached_property
    def variations(self) -> pl.DataFrame | None:
        """The table of varied rows; None where nothing was varied."""
        if not (self.folder / VARIATIONS_FILE).is_file():
            return None
        return self._read(VARIATIONS_FILE, ("variation", "value", "rank", "moved", "row", "user_id"))

    def _read(self, name: str, required: Sequence[str]) -> pl.DataFrame:
        import polars as pl

        file = self.folder / name
        frame = read_parquet(file, AGAIN)
        missing = [column for column in required if column not in frame.columns]
        if missing:
            raise UserError(f"{file} lacks the column '{missing[0]}'.", AGAIN)
        return frame.with_columns(pl.lit(self.measured_hash).alias("data"))


def _of_all_targets(folder: Path) -> bool:
    """Whether an evaluation counts all targets; others are of a question of their own (`--targets`)."""
    return bool(RunFolder(folder).record.get("options", {}).get("targets", "all") == "all")


def group_by_label(runs: Sequence[Evaluation]) -> dict[str, list[Evaluation]]:
    """Group runs that differ in nothing but seed and dataset fold; runs of one label that differ in more stand alone.

    Returns:
        name -> runs, in the order given; where a label names different things, the folders tell them apart.
    """
    labels: dict[str, dict[str, list[Evaluation]]] = {}
    for run in runs:
        configuration = repr(_configuration(run.results.get("options", {})))
        labels.setdefault(run.label, {}).setdefault(configuration, []).append(run)
    groups: dict[str, list[Evaluation]] = {}
    for label, alike in labels.items():
        for same in alike.values():
            # An aligned model may share its seed with another that started from another seed's model.
            results = [(run.measured_hash, run.results) for run in same]
            drawn = {(data, each.get("seed"), each.get("options", {}).get("model")) for data, each in results}
            if len(alike) == 1 and len(drawn) == len(same):
                groups[label] = same
            else:
                groups.update({f"{label} ({run.folder})": [run] for run in same})
    return groups


def _configuration(options: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What a run was asked for, without what may differ between the runs of one group.

    An option that was not given is one that an earlier version did not know: both say nothing.
    """
    kept = {key: value for key, value in options.items() if key not in PER_RUN and value is not None and value != {}}
    if "model" in kept:
        kept["model"] = run_name(Path(str(kept["model"])))  # the same step, of another seed or fold
    return sorted((key, _configuration(value) if isinstance(value, Mapping) else value) for key, value in kept.items())
