"""`recalign prepare`: raw interactions to a prepared dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from recalign.commands.declared import takes
from recalign.commands.shared_options import (
    JsonOption,
    OutOption,
    OverwriteOption,
    ParamOption,
    QuietOption,
    SeedOption,
)
from recalign.preparation.prepare_options import PrepareOptions


@takes(PrepareOptions)
def prepare(
    source: Annotated[
        str, typer.Argument(help="A source (`recalign plugins list --kind source`), or a path whose source is guessed.")
    ] = "synthetic",
    path: Annotated[Path | None, typer.Argument(help="What the source reads; synthetic reads nothing.")] = None,
    *,
    meta: Annotated[
        Path | None, typer.Option(help="File of the items' metadata, of sources that read one; as -p meta=FILE.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Hugging Face tokenizer that measures titles in the report (default: words).")
    ] = None,
    param: ParamOption = None,
    out: OutOption = None,
    seed: SeedOption = 0,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    **options: Any,
) -> dict[str, Any]:
    """Turn raw interactions into a prepared dataset: catalogue, windows by split, report.

    Example: recalign prepare recbole ml-100k --task list --history 20 --split user --folds 5 --relevance "rating>=4"

    Sources (docs/data.md says where to download what; `recalign plugins show NAME` lists their parameters):

    - recalign prepare PATH: the source that recognises the path

    - recalign prepare amazon REVIEWS --meta META: reviews of 2014, 2018 or 2023, or the benchmark's splits

    - recalign prepare steam REVIEWS --meta GAMES: reviews with hours played, or Australian users with reviews or games

    - recalign prepare goodreads INTERACTIONS --meta BOOKS: the UCSD Book Graph

    - recalign prepare movielens FOLDER: 100K to 32M

    - recalign prepare yelp REVIEWS --meta BUSINESSES: Yelp's open dataset

    - recalign prepare recbole FOLDER: atomic files, benchmark files too

    - recalign prepare instructions FILE: titles quoted in prose (BIGRec, SPRec, MSL) or in lists (S-DPO)

    - recalign prepare minionerec FOLDER: MiniOneRec's CSVs, titles and semantic identifiers

    - recalign prepare windows FOLDER: ready windows of BEAR and MSL

    - recalign prepare huggingface NAME: a dataset of the hub, of save_to_disk, Arrow or Parquet

    - recalign prepare table FILE: any csv, tsv, json, Parquet; SASRec's pairs; a row a user

    - recalign prepare synthetic: made-up data
    """
    from recalign import console, workspace
    from recalign.params import parse_assignments
    from recalign.preparation.guessing import named_source
    from recalign.preparation.pipeline import prepare_dataset

    params = parse_assignments(param or [])
    if meta is not None:
        params["meta"] = str(meta)
    source, path = named_source(source, path)
    results = prepare_dataset(
        source,
        path,
        out or workspace.home() / "data",
        params=params,
        options=options,
        tokenizer=tokenizer,
        seed=seed,
        overwrite=overwrite,
    )
    if not results["reused"]:
        rows = {split: f"{figures['rows']:,} {split}" for split, figures in results["counts"]["rows"].items()}
        console.say(f"{results['path']}: {rows['train']}, {rows['valid']} and {rows['test']} rows.")
    return results
