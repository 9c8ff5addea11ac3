"""`recalign baseline`: recommendations of a conventional recommender, as predictions that `eval` measures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from recalign import console
from recalign.commands.shared_options import (
    DataOption,
    ExcludeHistoryOption,
    JsonOption,
    OutOption,
    OverwriteOption,
    ParamOption,
    QuietOption,
    SeedOption,
    SizeOption,
    SplitOption,
)
from recalign.errors import UserError, did_you_mean
from recalign.workspace import RunFolder, home

if TYPE_CHECKING:
    from recalign.data.dataset import PreparedDataset
    from recalign.recommenders.sequential import SequentialModel
    from recalign.recommenders.simple import Scorer

TRAINED = ("sasrec", "bert4rec")


def baseline(
    recommender: Annotated[
        str, typer.Argument(help="popularity, recent-popularity, item-knn, tf-idf, random-unseen, sasrec or bert4rec.")
    ],
    *,
    data: DataOption = None,
    param: ParamOption = None,
    split: SplitOption = "test",
    size: SizeOption = None,
    exclude_history: ExcludeHistoryOption = "auto",
    out: OutOption = None,
    seed: SeedOption = 0,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> dict[str, Any]:
    """Recommend with a conventional recommender that sees the same training interactions as the models.

    sasrec and bert4rec are trained, and kept for `recalign decode --decoder d3`; the others take seconds.

    Examples:
    - recalign baseline item-knn

    - recalign baseline sasrec -p hidden=128

    - recalign decode --decoder d3 -p assistant=runs/baseline-sasrec-test
    """
    import time

    from recalign.data.dataset import PreparedDataset
    from recalign.params import parse_assignments
    from recalign.recommenders.assistants import RECOMMENDER, identity
    from recalign.recommenders.simple import SIMPLE, recommend_by
    from recalign.runs.predictions import PREDICTIONS_FILE, write_predictions
    from recalign.tasks import find_task

    if recommender not in (*SIMPLE, *TRAINED):
        raise UserError(f"There is no baseline '{recommender}'.", did_you_mean(recommender, [*SIMPLE, *TRAINED]))
    dataset = PreparedDataset(data or home() / "data")
    exclude = dataset.excludes_history(exclude_history)
    wanted = size or find_task(dataset.task).list_size(dataset.list_length)
    params = parse_assignments(param or [])
    asked = {
        "baseline": recommender,
        "data": str(dataset.path),
        "params": params,
        "split": split,
        "size": wanted,
        "exclude_history": exclude,
        "seed": seed,
    }
    inputs = {"data": dataset.hash}
    folder = RunFolder(out or home() / f"baseline-{recommender}-{split}")
    if folder.plan("baseline", asked, inputs, resume=True, overwrite=overwrite)[0] == "done":
        console.say(f"{folder.path} is up to date.")
        return {"out": str(folder.path), **folder.record["results"]}
    started = time.perf_counter()
    scorer, model = _scorer(recommender, dataset, params, seed)
    trained = time.perf_counter()
    rows = dataset.rows(split)[:]
    predictions = recommend_by(scorer, dataset, rows, wanted, exclude_history=exclude)
    makes = (PREDICTIONS_FILE, RECOMMENDER)
    folder.begin("baseline", asked, inputs, resume=True, overwrite=overwrite, makes=makes)
    write_predictions(folder.path, predictions, rows, dataset.catalogue)
    if model is not None:
        model.save(folder.path / RECOMMENDER, recommender)
    answered = time.perf_counter()
    results = {
        "decoder": recommender,
        "oracle": False,
        "task": dataset.task,
        "rows": len(rows),
        "seconds": trained - started,
        "cost": {"prompts": len(rows), "seconds": answered - trained},
        **identity(dataset.catalogue),
        **({} if model is None else {"fit": model.fit}),
    }
    folder.finish(results)
    kept = "" if model is None else f", trained for {model.fit['epochs']} epochs (number {model.fit['epoch']} is kept)"
    console.say(f"{folder.path}: {len(rows)} rows by {recommender} in {answered - started:.1f} s{kept}.")
    return {"out": str(folder.path), **results}


def _scorer(
    name: str, dataset: PreparedDataset, params: dict[str, str], seed: int
) -> tuple[Scorer, SequentialModel | None]:
    """Make the scorer, and the trained model where it is one."""
    from recalign.params import Params, build_params
    from recalign.recommenders.simple import BASELINES, SIMPLE, Training

    if name in SIMPLE:
        build_params(Params, params, f"baseline '{name}'")
        return BASELINES[SIMPLE[name]](Training.of(dataset, seed)), None
    from recalign.recommenders.sequential import KINDS, train_sequential

    model = train_sequential(name, dataset, build_params(KINDS[name], params, f"baseline '{name}'"), seed)
    return model.scores, model
