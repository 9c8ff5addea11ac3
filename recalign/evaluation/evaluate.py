"""Evaluate one set of lists: per-user table, means with intervals, corpus measures, the baselines on the same rows."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recalign import console
from recalign.api import Predictions, Row
from recalign.data.parquet import write_parquet
from recalign.evaluation.measures import corpus_measures
from recalign.evaluation.per_user import per_user, summarise
from recalign.evaluation.significance import Interval
from recalign.recommenders.simple import BASELINES, recommend
from recalign.removal import discard
from recalign.runs.cost import read_cost
from recalign.runs.names import run_name
from recalign.runs.predictions import model_run
from recalign.workspace import RunFolder, atomic, content_hash, home, write_json

if TYPE_CHECKING:
    import polars as pl

    from recalign.data.dataset import PreparedDataset


METRICS_FILE, PER_USER_FILE, BASELINES_FILE = "metrics.json", "per_user.parquet", "baselines.parquet"


@dataclass(frozen=True)
class Measured:
    """One system's results.

    Args:
        frame: the per-user table.
        metrics: mean and interval of each metric; `n` rows had a value.
        corpus: measures of all lists together.
    """

    frame: pl.DataFrame
    metrics: dict[str, Interval]
    corpus: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """For `metrics.json`."""
        metrics = {
            name: {**interval.as_dict(), "left_out": self.frame.height - interval.n}
            for name, interval in self.metrics.items()
        }
        return {"metrics": metrics, "corpus": self.corpus, "rows": self.frame.height}


def measure(
    predictions: Predictions,
    rows: Sequence[Row],
    dataset: PreparedDataset,
    metrics: Sequence[str],
    seed: int = 0,
    more: Mapping[str, pl.Series] | None = None,
) -> Measured:
    """Measure one system's lists.

    Args:
        predictions: U lists.
        rows: [U] what they answer.
        dataset: gives the catalogue.
        metrics: names of metrics.
        seed: of the bootstrap.
        more: metrics measured already: name -> [U] values.

    Raises:
        UserError: as `metrics.per_user`.
    """
    frame = per_user(predictions, rows, dataset.catalogue, metrics).with_columns(**(more or {}))
    return Measured(frame, summarise(frame, seed), corpus_measures(predictions, dataset.catalogue))


def measure_baselines(
    dataset: PreparedDataset,
    split: str,
    rows: Sequence[Row],
    size: int,
    metrics: Sequence[str],
    *,
    exclude_history: bool,
    cache: Path,
    seed: int = 0,
    more: Sequence[str] = (),
    advance: Callable[..., None] | None = None,
) -> dict[str, Measured]:
    """Measure every baseline on the same rows; their lists are kept in `cache` and used again.

    Args:
        dataset: what they learn from.
        split: whose rows these are.
        rows: [U].
        size: K.
        metrics: names of metrics.
        exclude_history: whether items of the history are left out, as for the model.
        cache: folder.
        seed: of the random pick and the bootstrap.
        more: metrics of models alone, null for baselines.
        advance: called with 1 after each baseline.
    """
    import polars as pl

    asked = {
        "dataset": dataset.hash,
        "split": split,
        "rows": [row.index for row in rows],
        "size": size,
        "exclude_history": exclude_history,
        "seed": seed,
    }
    file = Path(cache) / f"{content_hash(asked)}.npz"
    kept = _read_lists(file)
    undefined = {name: pl.Series(name, [None] * len(rows), dtype=pl.Float64) for name in more}
    measured = {}
    for name in BASELINES:
        if name not in kept:
            kept[name] = recommend(name, dataset, rows, size, exclude_history=exclude_history, seed=seed)
        measured[name] = measure(kept[name], rows, dataset, metrics, seed, undefined)
        if advance is not None:
            advance(1)
    if not file.is_file():
        _write_lists(file, kept)
    return measured


def evaluate(
    folder: Path,
    dataset: PreparedDataset,
    split: str,
    predictions: Predictions,
    rows: Sequence[Row],
    metrics: Sequence[str],
    out: Path,
    label: str | None = None,
    *,
    more: Mapping[str, pl.Series] | None = None,
    baselines: bool = True,
    seed: int = 0,
) -> dict[str, Any]:
    """Evaluate what a decode run wrote; write `per_user.parquet`, `baselines.parquet` and `metrics.json`.

    Args:
        folder: the decode run.
        dataset: that it was made for.
        split: whose rows it answers.
        predictions: U lists.
        rows: [U].
        metrics: names of metrics.
        out: where to write.
        label: name in tables; by default the model run's folder, with the decoder where it is no plain one; a
            baseline's own name.
        more: metrics of the model alone, measured already: name -> [U] values.
        baselines: whether to measure these too.
        seed: of the bootstrap and the random pick.

    Returns:
        What `metrics.json` holds.
    """
    record = RunFolder(folder).record
    options = record.get("options", {})
    model_folder, model_record = model_run(folder, record)
    size = predictions.items.shape[1]
    found = measure(predictions, rows, dataset, metrics, seed, more)
    beside: dict[str, Measured] = {}
    if baselines:
        exclude = options.get("exclude_history")
        with console.progress("baselines", len(BASELINES)) as advance:
            beside = measure_baselines(
                dataset,
                split,
                rows,
                size,
                metrics,
                exclude_history=dataset.excludes_history() if exclude is None else bool(exclude),
                cache=home() / "baselines",
                seed=seed,
                more=list(more or {}),
                advance=advance,
            )
    results = {
        "label": label or options.get("baseline") or default_label(model_folder, options.get("decoder")),
        "oracle": bool(record.get("results", {}).get("oracle", False)),
        "split": split,
        "seed": training_seed(model_record.get("options", {})),
        "options": model_record.get("options", {}),
        "data": dataset.identity(),
        "list_length": size,
        **found.as_dict(),
        "baselines": {name: measured.as_dict() for name, measured in beside.items()},
        "cost": read_cost(record, model_record),
        "out": str(out),
    }
    write_tables(out, found.frame, {name: measured.frame for name, measured in beside.items()})
    write_json(out / METRICS_FILE, results)
    return results


def default_label(model_folder: Path, decoder: str | None) -> str:
    """Name a result: the model run, and the decoder where it is not the task's plain one."""
    name = run_name(model_folder.resolve())
    return name if decoder in (None, "greedy", "beam") else f"{name} + {decoder}"


def training_seed(options: Mapping[str, Any]) -> int | None:
    """The seed among a model run's options, at whatever depth; None where no run is known."""
    nested = [training_seed(value) for value in options.values() if isinstance(value, Mapping)]
    return next((seed for seed in [options.get("seed"), *nested] if seed is not None), None)


def write_tables(out: Path, frame: pl.DataFrame, baselines: dict[str, pl.DataFrame]) -> None:
    """Write the per-user table, and those of the baselines one below the other with their names."""
    import polars as pl

    with atomic(out / PER_USER_FILE) as temporary:
        write_parquet(temporary, frame)
    if baselines:
        named = [table.select(pl.lit(name).alias("baseline"), pl.all()) for name, table in baselines.items()]
        with atomic(out / BASELINES_FILE) as temporary:
            write_parquet(temporary, pl.concat(named))


def _read_lists(file: Path) -> dict[str, Predictions]:
    """Read cached lists, or nothing where there is no cache."""
    if not file.is_file():
        return {}
    try:
        with np.load(file, allow_pickle=False) as arrays:
            names = {key.rpartition("/")[0] for key in arrays}
            return {
                name: Predictions(arrays[f"{name}/items"], arrays[f"{name}/scores"], arrays[f"{name}/lengths"])
                for name in names
            }
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        console.warn(f"{file} is not readable ({error}); the baselines are computed again.")
        discard(file, inside=file.parent)
        return {}


def _write_lists(file: Path, lists: dict[str, Predictions]) -> None:
    """Write lists for the next evaluation of the same rows."""
    arrays = {}
    for name, found in lists.items():
        arrays |= {f"{name}/items": found.items, f"{name}/scores": found.scores, f"{name}/lengths": found.lengths}
    with atomic(file) as temporary, open(temporary, "wb") as sink:
        np.savez(sink, **arrays)
