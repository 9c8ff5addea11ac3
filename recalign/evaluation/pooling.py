"""Pool runs into systems: seeds are averaged, folds joined, and what does not fit together is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recalign.errors import UserError, did_you_mean
from recalign.evaluation.cost import mean_of
from recalign.evaluation.metrics import KEYS, metric_names, summarise
from recalign.evaluation.runs import EvalRun
from recalign.evaluation.significance import Interval

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class System:
    """One row of the comparison.

    Args:
        name: as shown.
        frame: per-user values: data, row, user_id and metrics; seeds averaged, folds one below the other, sorted.
        summary: mean and interval of each metric.
        runs: the runs that were pooled.
        baseline: whether it is a simple baseline.
        oracle: whether its decoder read the targets.
        corpus: measures of all lists of a run together, averaged over the runs.
        cost: see `cost.COLUMNS`.
    """

    name: str
    frame: pl.DataFrame
    summary: dict[str, Interval]
    runs: tuple[EvalRun, ...]
    baseline: bool
    oracle: bool
    corpus: dict[str, float]
    cost: dict[str, float]


def common_metrics(runs: Sequence[EvalRun], wanted: Sequence[str] | None) -> list[str]:
    """Name the metrics to compare: those wanted, or all, which every run must then have.

    Raises:
        UserError: a run lacks one, or has one that the first lacks.
    """
    first = runs[0]
    have = metric_names(first.frame)
    names = have if wanted is None else list(wanted)
    for run in runs:
        own = metric_names(run.frame)
        missing = [name for name in names if name not in own]
        if missing:
            elsewhere = f", {first.folder} has" if wanted is None else ""
            raise UserError(f"{run.folder} has no metric '{missing[0]}'{elsewhere}.", did_you_mean(missing[0], own))
        extra = [name for name in own if name not in have]
        if wanted is None and extra:
            both = ",".join(name for name in have if name in own)
            raise UserError(
                f"{first.folder} has no metric '{extra[0]}', {run.folder} has.", f"Compare --metrics {both}."
            )
    return names


def pool(name: str, runs: Sequence[EvalRun], metrics: Sequence[str], seed: int) -> System:
    """Average the seeds and join the folds of one group."""
    first = runs[0]
    for run in runs[1:]:
        _check_same_family(first, run)
    frame = _average([run.frame for run in runs], metrics)
    _check_tested_once(name, frame)
    for run in runs:
        rows = frame.filter(frame["data"] == run.data_hash).height
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


def pool_baselines(
    groups: Mapping[str, Sequence[EvalRun]], model: System, metrics: Sequence[str], seed: int
) -> list[System]:
    """Join the folds of each baseline that was measured for every dataset; seeds of models do not concern them."""
    by_data = {run.data_hash: run for runs in groups.values() for run in reversed(runs) if run.baselines}
    if set(by_data) != set(model.frame["data"].unique().to_list()):
        return []
    runs = tuple(by_data.values())
    systems = []
    for name in runs[0].baselines:
        frames = [run.baselines[name] for run in runs if name in run.baselines]
        complete = len(frames) == len(runs) and all(metric in frame.columns for frame in frames for metric in metrics)
        if complete and name not in groups:
            frame = _average(frames, metrics)
            corpus = mean_of([run.results["baselines"][name]["corpus"] for run in runs])
            systems.append(System(name, frame, summarise(frame, seed), runs, True, False, corpus, {}))
    for system in systems:
        check_same_rows(model, system)
    return systems


def _average(frames: Sequence[pl.DataFrame], metrics: Sequence[str]) -> pl.DataFrame:
    """Mean of each row over the frames that hold it, sorted by dataset and row."""
    import polars as pl

    whole = pl.concat([frame.select(*KEYS, *metrics) for frame in frames])
    return whole.group_by(KEYS, maintain_order=True).mean().sort("data", "row")


def _check_same_family(first: EvalRun, other: EvalRun) -> None:
    """Refuse to pool runs of different splits, or of datasets that are not folds of one."""
    hint = "A group pools folds of one dataset and seeds of one configuration."
    if first.results["split"] != other.results["split"]:
        raise UserError(
            f"{first.folder} is on the split '{first.results['split']}', {other.folder} on '{other.results['split']}'.",
            hint,
        )
    one, two = ({**run.results["data"]["options"], "fold": None} for run in (first, other))
    differing = [key for key in sorted({*one, *two}) if one.get(key) != two.get(key)]
    if first.data_hash != other.data_hash and differing:
        key = differing[0]
        raise UserError(
            f"{first.folder} and {other.folder} are on different datasets ({key}: {one.get(key)!r} and "
            f"{two.get(key)!r}).",
            hint,
        )


def _check_tested_once(name: str, frame: pl.DataFrame) -> None:
    """Refuse to pool folds that test a user twice: the paired tests would count them twice."""
    folds = frame.select("data", "user_id").unique()
    twice = folds.filter(folds["user_id"].is_duplicated())
    if twice.height:
        raise UserError(
            f"The runs of '{name}' test user '{twice['user_id'].min()}' in more than one fold.",
            "Pool folds of one `prepare --split user --folds N`, which test every user once.",
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
            "Compare runs on the same prepared dataset, or on the same folds.",
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
