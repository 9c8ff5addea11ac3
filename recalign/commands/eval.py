"""Measure predictions: per user, in the mean with 95% intervals, beside conventional recommenders on the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from recalign import console
from recalign.commands.shared_options import (
    AnalysesOption,
    JsonOption,
    OutOption,
    OverwriteOption,
    QuietOption,
    SeedOption,
)
from recalign.workspace import RunFolder, file_hash, home

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from recalign.api import Predictions
    from recalign.comparison.analyses.partitions import Partition
    from recalign.data.dataset import PreparedDataset

ANALYSES_FILE, FIGURES = "analyses.json", "figures"

PredictionsArgument = Annotated[
    Path | None,
    typer.Argument(help="A decode folder, or a model run with one (default: the workspace's newest predictions)."),
]
DatasetOption = Annotated[
    Path | None, typer.Option(help="Prepared dataset (default: the one that the predictions were made from).")
]
MetricsOption = Annotated[
    str | None,
    typer.Option(
        help="Metrics, separated by commas, such as ndcg@5,recall@5,mgu (default: all that the lists and genres allow)."
    ),
]
ExactOption = Annotated[
    Path | None,
    typer.Option(
        help="The same model's predictions by the exact decoder: adds the pruning rate pr@k (lower is better), the "
        "share of rows whose target is in the exact top k but not in the predictions."
    ),
]
TargetsOption = Annotated[
    Literal["all", "warm", "cold"],
    typer.Option(help="Targets that count: those that training interactions name (warm), the others (cold), or all."),
]
LabelOption = Annotated[str | None, typer.Option(help="Name in tables (default: the model run's folder).")]
BaselinesOption = Annotated[
    bool, typer.Option("--baselines/--no-baselines", help="Measure conventional recommenders on the same rows, too.")
]
RecommendersOption = Annotated[
    str | None,
    typer.Option(
        help="Comma-separated recommenders that --baselines measures, each with its default parameters: any that "
        "`recalign plugins list` names (default: popularity, recent-popularity, item-knn, tf-idf, random-unseen)."
    ),
]


def eval(  # noqa: A001
    predictions: PredictionsArgument = None,
    data: DatasetOption = None,
    metrics: MetricsOption = None,
    exact: ExactOption = None,
    targets: TargetsOption = "all",
    baselines: BaselinesOption = True,
    recommenders: RecommendersOption = None,
    analyses: AnalysesOption = None,
    label: LabelOption = None,
    out: OutOption = None,
    seed: SeedOption = 0,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> dict[str, Any]:
    """Measure predictions.

    Examples:
    - recalign eval runs/sft/decode-greedy-test

    - recalign eval runs/align-blade-ndcg --metrics ndcg@5,recall@5,mgu

    - recalign eval runs/sft --targets warm

    - recalign eval runs/sft/decode-beam-test --exact runs/sft/decode-exact-test

    - recalign eval runs/sft --analyses cold-groups,history
    """
    from recalign.comparison.analyses.partitions import find_partitions
    from recalign.data.dataset import PreparedDataset
    from recalign.evaluation.baselines import RECOMMENDERS
    from recalign.evaluation.evaluate import BASELINES_FILE, METRICS_FILE, PER_USER_FILE, VARIATIONS_FILE, evaluate
    from recalign.evaluation.exact import read_exact
    from recalign.evaluation.per_user import split_metrics
    from recalign.evaluation.targets import counting
    from recalign.runs.lifecycle import Asked, choose_folder, perform
    from recalign.runs.lineage import of_predictions
    from recalign.runs.predictions import (
        PREDICTIONS_FILE,
        check_made_for,
        find_predictions,
        find_variations,
        read_predictions,
    )

    partitions = find_partitions(analyses)
    folder = find_predictions(predictions)
    record = RunFolder(folder).record
    lineage = of_predictions(folder)
    dataset = PreparedDataset(Path(data or lineage.data or home() / "data"))
    check_made_for(dataset, record, folder)
    split = lineage.split
    lists, rows = read_predictions(folder, dataset, split, lineage.size or 1)
    lists, rows = counting(targets, lists, rows, dataset.catalogue)
    names = _names(metrics, dataset, lists.items.shape[1], pruning=exact is not None)
    beside = ([*RECOMMENDERS] if recommenders is None else split_metrics(recommenders)) if baselines else []

    asked = {"metrics": names, "targets": targets, "recommenders": beside, "label": label, "seed": seed}
    inputs = {"data": dataset.hash, "predictions": file_hash(folder / PREDICTIONS_FILE)}
    inputs |= {f"{name} {value}": file_hash(at / PREDICTIONS_FILE) for name, value, at in find_variations(folder)}
    asked |= {"analyses": [each.name for each in partitions]} if partitions else {}
    best: Predictions | None = None
    if exact is not None:
        other = find_predictions(exact)
        best = read_exact(other, folder, dataset, split, rows, names)
        inputs["exact"] = file_hash(other / PREDICTIONS_FILE)
    makes = (METRICS_FILE, PER_USER_FILE, BASELINES_FILE, VARIATIONS_FILE, ANALYSES_FILE, FIGURES)

    def work(_: None) -> dict[str, Any]:
        found = evaluate(
            folder, dataset, lists, rows, names, run.path, label, exact=best, recommenders=beside, seed=seed
        )
        return found | _analyse(found, partitions, run.path, seed)

    asking = Asked("eval", asked, inputs, makes, remade=True)
    default = folder / ("eval" if targets == "all" else f"eval-{targets}")
    run = choose_folder(out, default, asking, overwrite=overwrite)
    results = perform(run, asking, lambda: None, work, resume=True, overwrite=overwrite)
    console.show(_table(results))
    _show_analyses(results)
    console.say(f"{folder}: {results['rows']} rows of {split}; the figures of every row are in {run.path}.")
    return results


def _names(metrics: str | None, dataset: PreparedDataset, size: int, *, pruning: bool) -> list[str]:
    """The metrics to measure, which are checked; with pruning rates where exact predictions are at hand."""
    from recalign.evaluation.exact import with_pruning_rates
    from recalign.evaluation.per_user import default_metrics, parse_metrics, split_metrics
    from recalign.tasks import find_task

    catalogue, cutoffs = dataset.catalogue, find_task(dataset.task).cutoffs
    names = default_metrics(catalogue, size, cutoffs) if metrics is None else split_metrics(metrics)
    if pruning:
        names = with_pruning_rates(names, catalogue, size)
    parse_metrics(names, catalogue, size, provided=("exact",) if pruning else ())
    return names


def _analyse(results: dict[str, Any], partitions: Sequence[Partition], out: Path, seed: int) -> dict[str, Any]:
    """Analyse what was measured, the model being the reference; write it down with figures."""
    from recalign.comparison.analyses import analyse
    from recalign.comparison.analyses.drawings import draw_analyses
    from recalign.comparison.evaluations import Evaluation
    from recalign.comparison.gallery import write_figures
    from recalign.comparison.systems import compare
    from recalign.workspace import write_json

    if not partitions and "variations" not in results:
        return {}
    comparison = compare({results["label"]: [Evaluation(out, results)]}, seed=seed)
    found = analyse(comparison, partitions, seed)
    write_figures(draw_analyses(found, comparison), out / FIGURES)
    write_json(out / ANALYSES_FILE, found.as_dict())
    return {"analyses": found.as_dict()}


def _show_analyses(results: dict[str, Any]) -> None:
    from recalign.comparison.analyses import Analyses
    from recalign.comparison.analyses.tables import ANALYSES_CAPTION, analysis_grids
    from recalign.comparison.report import to_rich
    from recalign.evaluation.tables import ALIKE

    if "analyses" in results:
        for grid in analysis_grids(Analyses.from_dict(results["analyses"])):
            console.show(to_rich(grid))
        console.show(f"p: paired Wilcoxon signed-rank over users; {ALIKE}. {ANALYSES_CAPTION}")


def _table(results: dict[str, Any]) -> Table:
    """One row a metric, one column a system; the model's figures carry their 95% intervals."""
    from rich.markup import escape
    from rich.table import Table

    from recalign.evaluation.significance import Interval
    from recalign.evaluation.tables import figure, number

    label = results["label"] + (" (oracle)" if results["oracle"] else "")
    table = Table(title=f"{results['rows']} rows of {results['split']}", caption="95% bootstrap intervals over users")
    table.add_column("metric", no_wrap=True)
    for heading in (label, *results["baselines"]):
        table.add_column(escape(heading), justify="right", overflow="fold")
    for name, found in results["metrics"].items():
        interval = Interval(found["mean"], found["low"], found["high"], found["n"])
        others = [number(baseline["metrics"][name]["mean"]) for baseline in results["baselines"].values()]
        table.add_row(name, figure(interval), *others)
    for name, value in results["corpus"].items():
        table.add_row(name, number(value), *(number(b["corpus"][name]) for b in results["baselines"].values()))
    return table
