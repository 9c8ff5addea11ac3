"""`recalign baseline`: recommendations of a conventional recommender, as predictions that `eval` measures."""

from __future__ import annotations

from pathlib import Path
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
    ThreadsOption,
    VaryOption,
    VaryRowsOption,
    varied,
)
from recalign.workspace import home

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recalign.api import Recommender, Row
    from recalign.data.dataset import PreparedDataset
    from recalign.variations import Varied


def baseline(
    recommender: Annotated[
        str,
        typer.Argument(
            help="A recommender, such as popularity, item-knn or sasrec: `recalign plugins list --kind recommender`."
        ),
    ],
    *,
    data: DataOption = None,
    param: ParamOption = None,
    split: SplitOption = "test",
    size: SizeOption = None,
    exclude_history: ExcludeHistoryOption = "auto",
    threads: ThreadsOption = None,
    vary: VaryOption = None,
    vary_rows: VaryRowsOption = None,
    out: OutOption = None,
    seed: SeedOption = 0,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> dict[str, Any]:
    """Recommend with a conventional recommender that sees the same training interactions as the models.

    sasrec and bert4rec are trained; the others take seconds. What was learnt is saved: decoders such as d3 and the
    reward assistant load it from the run's folder.

    Examples:
    - recalign baseline item-knn

    - recalign baseline sasrec -p hidden=128

    - recalign decode --decoder d3 -p assistant=runs/baseline-sasrec-test
    """
    import time

    from recalign.data.dataset import PreparedDataset
    from recalign.params import parse_assignments
    from recalign.plugins.registry import create
    from recalign.recommenders.assistants import RECOMMENDER
    from recalign.recommenders.recommend import fit
    from recalign.runs.lifecycle import Asked, choose_folder, perform
    from recalign.runs.lineage import KEY, Lineage
    from recalign.runs.predictions import PREDICTIONS_FILE
    from recalign.tasks import find_task
    from recalign.threads import ask
    from recalign.variations import VARIATIONS

    ask(threads)
    chosen: Recommender = create("recommender", recommender, parse_assignments(param or []))  # type: ignore[assignment]
    dataset = PreparedDataset(data or home() / "data")
    asked = {
        "recommender": recommender,
        "data": str(dataset.path),
        "params": chosen.params.model_dump(),
        "split": split,
        "size": find_task(dataset.task).checked_size(size, dataset.list_length, len(dataset.catalogue)),
        "exclude_history": dataset.excludes_history(exclude_history),
        "seed": seed,
    }
    changes, again = varied(vary, vary_rows, dataset.rows(split) if vary else (), seed)
    asked |= changes
    facts = {name: asked[name] for name in ("seed", "data", "split", "size", "exclude_history")}
    lineage = Lineage(recommender, options=asked, **facts)

    def ready() -> float:
        started = time.perf_counter()
        fit(chosen, dataset, seed)
        return time.perf_counter() - started

    makes = (PREDICTIONS_FILE, RECOMMENDER, VARIATIONS)
    asking = Asked("baseline", asked, {"data": dataset.hash}, makes, {"seed": seed, KEY: lineage.as_dict()})
    default = home() / f"baseline-{recommender}-{split}"
    run = choose_folder(out, default, asking, overwrite=overwrite)
    results = perform(
        run,
        asking,
        ready,
        lambda seconds: _answer(chosen, dataset, asked, again, run.path, seconds),
        resume=True,
        overwrite=overwrite,
    )
    return {"out": str(run.path), **results}


def _answer(
    recommender: Recommender,
    dataset: PreparedDataset,
    asked: dict[str, Any],
    varied: Sequence[Varied],
    folder: Path,
    seconds: float,
) -> dict[str, Any]:
    """Recommend to the rows of the split and to varied ones, write it down, and return the run's results."""
    import time

    from recalign.recommenders.assistants import RECOMMENDER, identity
    from recalign.recommenders.recommend import recommend
    from recalign.runs.predictions import write_predictions

    def answer(rows: Sequence[Row], where: Path) -> None:
        exclude = asked["exclude_history"]
        predictions = recommend(recommender, rows, asked["size"], len(dataset.catalogue), exclude_history=exclude)
        write_predictions(where, predictions, rows, dataset.catalogue)

    for each in varied:
        answer(each.rows, folder / each.folder)
    started = time.perf_counter()
    rows = dataset.rows(asked["split"])[:]
    answer(rows, folder)
    _save(recommender, folder / RECOMMENDER)
    answering = time.perf_counter() - started
    figures = "".join(f", {name} {value:.4g}" for name, value in recommender.fitted.items())
    console.say(f"{folder}: {len(rows)} rows by {recommender.name} in {seconds + answering:.1f} s{figures}.")
    return {
        "decoder": recommender.name,
        "oracle": False,
        "task": dataset.task,
        "rows": len(rows),
        "seconds": seconds,
        "cost": {"prompts": len(rows), "seconds": answering},
        **identity(dataset.catalogue),
        **({"fit": recommender.fitted} if recommender.fitted else {}),
    }


def _save(recommender: Recommender, folder: Path) -> None:
    from recalign.plugins.registry import blamed

    folder.mkdir(exist_ok=True)
    with blamed("recommender", recommender, "save"):
        recommender.save(folder)
