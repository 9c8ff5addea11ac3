"""Measure predictions: per user, in the mean with 95% intervals, beside conventional recommenders on the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from recalign import console
from recalign.commands.shared_options import JsonOption, OutOption, OverwriteOption, QuietOption, SeedOption
from recalign.workspace import RunFolder, file_hash, home

if TYPE_CHECKING:
    from rich.table import Table

    from recalign.api import Predictions

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
    """
    from recalign.data.dataset import PreparedDataset
    from recalign.evaluation.baselines import RECOMMENDERS
    from recalign.evaluation.evaluate import BASELINES_FILE, METRICS_FILE, PER_USER_FILE, evaluate
    from recalign.evaluation.exact import read_exact, with_pruning_rates
    from recalign.evaluation.per_user import default_metrics, parse_metrics, split_metrics
    from recalign.evaluation.targets import counting
    from recalign.runs.lifecycle import Asked, choose_folder, perform
    from recalign.runs.lineage import of_predictions
    from recalign.runs.predictions import PREDICTIONS_FILE, check_made_for, find_predictions, read_predictions
    from recalign.tasks import find_task

    folder = find_predictions(predictions)
    record = RunFolder(folder).record
    lineage = of_predictions(folder)
    dataset = PreparedDataset(Path(data or lineage.data or home() / "data"))
    check_made_for(dataset, record, folder)
    split = lineage.split
    lists, rows = read_predictions(folder, dataset, split, lineage.size or 1)
    lists, rows = counting(targets, lists, rows, dataset.catalogue)
    size = lists.items.shape[1]
    names = (
        default_metrics(dataset.catalogue, size, find_task(dataset.task).cutoffs)
        if metrics is None
        else split_metrics(metrics)
    )
    if exact is not None:
        names = with_pruning_rates(names, dataset.catalogue, size)
    parse_metrics(names, dataset.catalogue, size, provided=() if exact is None else ("exact",))
    beside = ([*RECOMMENDERS] if recommenders is None else split_metrics(recommenders)) if baselines else []

    asked = {"metrics": names, "targets": targets, "recommenders": beside, "label": label, "seed": seed}
    inputs = {"data": dataset.hash, "predictions": file_hash(folder / PREDICTIONS_FILE)}
    best: Predictions | None = None
    if exact is not None:
        other = find_predictions(exact)
        best = read_exact(other, folder, dataset, split, rows, names)
        inputs["exact"] = file_hash(other / PREDICTIONS_FILE)
    makes = (METRICS_FILE, PER_USER_FILE, BASELINES_FILE)

    def work(_: None) -> dict[str, Any]:
        return evaluate(
            folder, dataset, lists, rows, names, run.path, label, exact=best, recommenders=beside, seed=seed
        )

    asking = Asked("eval", asked, inputs, makes, remade=True)
    default = folder / ("eval" if targets == "all" else f"eval-{targets}")
    run = choose_folder(out, default, asking, overwrite=overwrite)
    results = perform(run, asking, lambda: None, work, resume=True, overwrite=overwrite)
    console.show(_table(results))
    console.say(f"{folder}: {results['rows']} rows of {split}; the figures of every row are in {run.path}.")
    return results


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
