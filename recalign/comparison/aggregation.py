"""Aggregate runs into systems: what answers the same rows is averaged, other folds and splits are joined.

A user may be tested in several splits. Intervals resample users with all their rows and tests are over each user's
mean difference (`evaluation.significance`), so nobody counts as two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recalign.comparison.evaluations import Evaluation
from recalign.errors import UserError, did_you_mean
from recalign.evaluation.per_user import KEYS, metric_names, summarise
from recalign.evaluation.significance import Interval
from recalign.runs.cost import mean_of

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class System:
    """One row of the comparison.

    Args:
        name: as shown.
        frame: per-user values: data, row, user_id and metrics; seeds averaged, folds and splits stacked, sorted.
        summary: mean and interval of each metric.
        runs: the runs that were aggregated.
        baseline: whether it is a simple baseline.
        oracle: whether its decoder read the targets.
        corpus: measures of all lists of a run together, averaged over the runs.
        cost: see `cost.COLUMNS`.
    """

    name: str
    frame: pl.DataFrame
    summary: dict[str, Interval]
    runs: tuple[Evaluation, ...]
    baseline: bool
    oracle: bool
    corpus: dict[str, float]
    cost: dict[str, float]


def metrics_of(groups: Mapping[str, Sequence[Evaluation]], wanted: Sequence[str] | None) -> list[str]:
    """Name the metrics to compare: those wanted, or all that a group has; where a system lacks one it has no value.

    Raises:
        UserError: no run has a wanted one, the runs of one group differ in one, or there is none.
    """
    found: dict[str, None] = {}
    for runs in groups.values():
        names = metric_names(runs[0].frame)
        for run in runs[1:]:
            differing = set(names) ^ set(metric_names(run.frame))
            for metric in sorted(differing if wanted is None else differing.intersection(wanted)):
                one, two = (runs[0], run) if metric in names else (run, runs[0])
                raise UserError(
                    f"{two.folder} has no metric '{metric}', {one.folder} has.",
                    "Evaluate the runs of a group alike, or name the metrics to compare with --metrics.",
                )
        found.update(dict.fromkeys(names))
    together = {name for runs in groups.values() for run in runs for name in run.results["corpus"]}
    for metric in wanted or ():
        if metric not in found and metric not in together:
            raise UserError(f"No run has the metric '{metric}'.", did_you_mean(metric, [*found, *together]))
    if not found:
        raise UserError(
            "The runs hold metrics of all lists together alone: nothing can be tested user by user.",
            "Evaluate them with a metric that has a value for each list, such as --metrics ndcg@5.",
        )
    named = [metric for metric in wanted or () if metric in found]
    return named or list(found)


def aggregate(name: str, runs: Sequence[Evaluation], metrics: Sequence[str], seed: int) -> System:
    """Average the seeds and join the folds and splits of one group."""
    first = runs[0]
    for run in runs[1:]:
        _check_same_family(first, run)
    frame = _average([run.frame for run in runs], metrics)
    for run in runs:
        rows = frame.filter(frame["data"] == run.measured_hash).height
        if run.frame.height != rows:
            raise UserError(
                f"The runs of '{name}' answer different rows of one dataset: {run.folder} has {run.frame.height} of "
                f"{rows}.",
                "Decode and evaluate the same rows.",
            )
    oracle = any(run.results.get("oracle") for run in runs)
    corpus = mean_of([run.results["corpus"] for run in runs])
    cost = mean_of([run.results.get("cost", {}) for run in runs])
    return System(name, frame, summarise(frame, seed), tuple(runs), False, oracle, corpus, cost)


def aggregate_baselines(
    groups: Mapping[str, Sequence[Evaluation]], model: System, metrics: Sequence[str], seed: int
) -> list[System]:
    """Join the folds of each baseline that was measured for every dataset; seeds of models do not concern them."""
    by_data = {run.measured_hash: run for runs in groups.values() for run in reversed(runs) if run.baselines}
    if set(by_data) != set(model.frame["data"].unique().to_list()):
        return []
    runs = tuple(by_data.values())
    systems = []
    for name in runs[0].baselines:
        frames = [run.baselines[name] for run in runs if name in run.baselines]
        if len(frames) == len(runs) and name not in groups:
            frame = _average(frames, metrics)
            corpus = mean_of([run.results["baselines"][name]["corpus"] for run in runs])
            systems.append(System(name, frame, summarise(frame, seed), runs, True, False, corpus, {}))
    for system in systems:
        check_same_rows(model, system)
    return systems


def _average(frames: Sequence[pl.DataFrame], metrics: Sequence[str]) -> pl.DataFrame:
    """Mean of each row over the frames that hold it, sorted by dataset and row; null for a metric that they lack."""
    import polars as pl

    columns = {name: pl.col(name) if name in frames[0].columns else pl.lit(None, pl.Float64) for name in metrics}
    whole = pl.concat([frame.select(*KEYS, **columns) for frame in frames])
    return whole.group_by(KEYS, maintain_order=True).mean().sort("data", "row")


def _check_same_family(first: Evaluation, other: Evaluation) -> None:
    """Refuse to aggregate runs of test and valid, or of datasets that differ in more than a fold or what was drawn."""
    hint = "A group aggregates seeds of one configuration, and folds or seeds of one `recalign prepare`."
    if first.results["split"] != other.results["split"]:
        raise UserError(
            f"{first.folder} is on the split '{first.results['split']}', {other.folder} on '{other.results['split']}'.",
            hint,
        )
    one, two = ({**run.results["data"]["options"], "fold": None, "seed": None} for run in (first, other))
    differing = [key for key in sorted({*one, *two}) if one.get(key) != two.get(key)]
    if first.data_hash != other.data_hash and differing:
        key = differing[0]
        raise UserError(
            f"{first.folder} and {other.folder} are on different datasets ({key}: {one.get(key)!r} and "
            f"{two.get(key)!r}).",
            hint,
        )


def check_same_rows(first: System, other: System) -> None:
    """Refuse systems that were not measured on exactly the same rows."""
    one, two = first.runs[0], other.runs[0]
    where = f"'{first.name}' ({one.folder}) and '{other.name}' ({two.folder})"
    data = [set(system.frame["data"].unique().to_list()) for system in (first, other)]
    if data[0] != data[1]:
        paths = [sorted({run.results["data"]["path"] for run in system.runs}) for system in (first, other)]
        raise UserError(
            f"{where} are on different datasets: {', '.join(paths[0])} ({len(data[0])}) and {', '.join(paths[1])} "
            f"({len(data[1])}).",
            "Compare runs on one dataset or the same folds; only identifiers and the shown history may differ.",
        )
    if one.results["split"] != two.results["split"]:
        raise UserError(
            f"{where} are on different splits: '{one.results['split']}' and '{two.results['split']}'.",
            "Decode the same split.",
        )
    if not first.frame.select(KEYS).equals(other.frame.select(KEYS)):
        raise UserError(
            f"{where} answer different rows ({first.frame.height} and {other.frame.height}).", "Decode the same rows."
        )
