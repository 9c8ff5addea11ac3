"""Evaluate one set of lists: per-user table, means with intervals, corpus metrics, recommenders on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recalign import console
from recalign.api import Predictions, Row
from recalign.data.parquet import write_parquet
from recalign.evaluation.baselines import RECOMMENDERS, recommend_beside
from recalign.evaluation.per_user import metric_names, parse_metrics, per_user, summarise
from recalign.evaluation.significance import Interval
from recalign.evaluation.variations import measure_variations
from recalign.metrics.expression import CorpusExpression, MetricExpression
from recalign.runs.cost import read_cost
from recalign.runs.lineage import of_predictions
from recalign.tasks import find_task
from recalign.workspace import RunFolder, atomic, write_json

if TYPE_CHECKING:
    import polars as pl

    from recalign.data.dataset import PreparedDataset


METRICS_FILE, PER_USER_FILE, BASELINES_FILE = "metrics.json", "per_user.parquet", "baselines.parquet"
VARIATIONS_FILE = "variations.parquet"
CORPUS = ("coverage", "gini")
"""Corpus-level metrics that every evaluation holds."""
CHANCE = "chance"
"""Name in tables of what an order drawn at random reaches, where a task has such a level."""


@dataclass(frozen=True)
class Measured:
    """One system's results.

    Args:
        frame: the per-user table.
        metrics: mean and interval of each metric; `n` rows had a value.
        corpus: metrics of all lists together.
    """

    frame: pl.DataFrame
    metrics: dict[str, Interval]
    corpus: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Return what `metrics.json` holds of it."""
        metrics = {
            name: {**interval.as_dict(), "left_out": self.frame.height - interval.n}
            for name, interval in self.metrics.items()
        }
        return {"metrics": metrics, "corpus": self.corpus, "rows": self.frame.height}


def measure(
    predictions: Predictions,
    rows: Sequence[Row],
    metrics: Sequence[MetricExpression],
    corpus: Sequence[CorpusExpression],
    seed: int = 0,
    exact: Predictions | None = None,
) -> Measured:
    """Measure one system's lists.

    Args:
        predictions: U lists.
        rows: [U] what they answer.
        metrics: per-list ones, bound to the catalogue.
        corpus: corpus-level ones, bound to the catalogue.
        seed: of the bootstrap.
        exact: the exact decoder's U lists by the same model, where some are at hand.

    Raises:
        UserError: as `per_user`.
    """
    frame = per_user(predictions, rows, metrics, exact)
    return Measured(frame, summarise(frame, seed), {metric.text: metric.score(predictions, rows) for metric in corpus})


def measure_mean(
    orders: Sequence[Predictions],
    rows: Sequence[Row],
    metrics: Sequence[MetricExpression],
    corpus: Sequence[CorpusExpression],
    seed: int = 0,
) -> Measured:
    """Measure several sets of lists for the same rows, and take the mean of each row's values over them.

    Args:
        orders: sets of U lists.
        rows: [U].
        metrics: per-list ones.
        corpus: corpus-level ones; their mean over the sets.
        seed: of the bootstrap.
    """
    import polars as pl

    frames = [per_user(each, rows, metrics) for each in orders]
    names = metric_names(frames[0])
    means = [pl.mean_horizontal([frame[name] for frame in frames]).alias(name) for name in names]
    frame = frames[0].with_columns(frames[0].select(means))
    figures = {each.text: float(np.mean([each.score(lists, rows) for lists in orders])) for each in corpus}
    return Measured(frame, summarise(frame, seed), figures)


def evaluate(
    folder: Path,
    dataset: PreparedDataset,
    predictions: Predictions,
    rows: Sequence[Row],
    metrics: Sequence[str],
    out: Path,
    label: str | None = None,
    *,
    exact: Predictions | None = None,
    recommenders: Sequence[str] = RECOMMENDERS,
    seed: int = 0,
) -> dict[str, Any]:
    """Evaluate what a decode run wrote; write its tables and `metrics.json`, which comes last.

    Args:
        folder: the decode run.
        dataset: that it was made for.
        predictions: U lists.
        rows: [U].
        metrics: names of metrics; those of CORPUS are measured besides.
        out: where to write.
        label: name in tables; by default the model run's folder, with the decoder where it is not the task's default
            one; a baseline's own name.
        exact: the exact decoder's U lists by the same model, which pruning rates read.
        recommenders: names of those to measure on the same rows.
        seed: of the bootstrap and of what recommenders draw.

    Returns:
        What `metrics.json` holds.
    """
    record, lineage = RunFolder(folder).record, of_predictions(folder)
    size = predictions.items.shape[1]
    named = [*CORPUS, *(name for name in metrics if name not in CORPUS)]
    expressions, corpus = parse_metrics(named, dataset.catalogue, size, provided=("exact",))
    found = measure(predictions, rows, expressions, corpus, seed, exact)
    exclude = lineage.exclude_history
    lists = recommend_beside(
        recommenders,
        dataset,
        lineage.split,
        rows,
        size,
        exclude_history=dataset.excludes_history() if exclude is None else exclude,
        seed=seed,
    )
    beside = {name: measure(each, rows, expressions, corpus, seed) for name, each in lists.items()}
    orders = find_task(dataset.task).chance(rows, size)
    if orders:
        beside[CHANCE] = measure_mean(orders, rows, expressions, corpus, seed)
    varied = measure_variations(folder, dataset, lineage.split, predictions, rows, expressions)
    results = {
        "label": console.label(label or lineage.label),
        "predictions": str(folder),
        "oracle": bool(record.get("results", {}).get("oracle", False)),
        "split": lineage.split,
        "seed": lineage.seed,
        "options": dict(lineage.options),
        "data": dataset.identity(),
        "list_length": size,
        **found.as_dict(),
        "higher_is_better": {
            **{metric.text: metric.higher_is_better for metric in expressions},
            **{metric.text: metric.higher_is_better for metric in corpus},
        },
        "baselines": {name: measured.as_dict() for name, measured in beside.items()},
        **({} if varied is None else {"variations": _values(varied)}),
        "cost": read_cost(record.get("results", {}), lineage.training_seconds),
        "out": str(out),
    }
    write_tables(out, found.frame, {name: measured.frame for name, measured in beside.items()}, varied)
    write_json(out / METRICS_FILE, results)
    return results


def _values(varied: pl.DataFrame) -> dict[str, list[int]]:
    """Variation -> its values."""
    pairs = varied.select("variation", "value").unique(maintain_order=True).rows()
    return {name: [value for each, value in pairs if each == name] for name, _ in pairs}


def write_tables(
    out: Path, frame: pl.DataFrame, baselines: dict[str, pl.DataFrame], varied: pl.DataFrame | None = None
) -> None:
    """Write the per-user table, those of the baselines one below the other with their names, and that of varied rows.

    Args:
        out: the folder.
        frame: of the system.
        baselines: name -> table.
        varied: see `measure_variations`.
    """
    import polars as pl

    with atomic(out / PER_USER_FILE) as temporary:
        write_parquet(temporary, frame)
    if baselines:
        named = [table.select(pl.lit(name).alias("baseline"), pl.all()) for name, table in baselines.items()]
        with atomic(out / BASELINES_FILE) as temporary:
            write_parquet(temporary, pl.concat(named))
    if varied is not None:
        with atomic(out / VARIATIONS_FILE) as temporary:
            write_parquet(temporary, varied)
