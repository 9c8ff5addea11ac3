"""`recalign prepare`: raw interactions to a prepared dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from recalign.commands.options import JsonOption, OutOption, OverwriteOption, ParamOption, QuietOption, SeedOption


def prepare(
    source: Annotated[
        str, typer.Argument(help="A source: synthetic, recbole, table, windows, or a plugin's.")
    ] = "synthetic",
    path: Annotated[Path | None, typer.Argument(help="What the source reads; synthetic reads nothing.")] = None,
    *,
    task: Annotated[str | None, typer.Option(help="next: one target a row; list: several.")] = None,
    history: Annotated[int | None, typer.Option(help="Items of a history at most.")] = None,
    min_history: Annotated[int | None, typer.Option(help="Items of a history at least.")] = None,
    targets: Annotated[int | None, typer.Option(help="Targets a row: 1 for next, 10 for list.")] = None,
    stride: Annotated[int | None, typer.Option(help="Events between training windows.")] = None,
    windows_per_user: Annotated[
        int | None, typer.Option(help="Training windows a user at most, evenly spread (default: all).")
    ] = None,
    list_length: Annotated[int | None, typer.Option(help="Titles of a response: 1 for next, 5 for list.")] = None,
    split: Annotated[str | None, typer.Option(help="time (8:1:1), user, leave-one-out, or given (windows).")] = None,
    folds: Annotated[int | None, typer.Option(help="Split user: number of folds.")] = None,
    fold: Annotated[int | None, typer.Option(help="Split user: the fold that is tested, from 1.")] = None,
    valid_share: Annotated[float | None, typer.Option(help="Share that validates (0.1).")] = None,
    test_share: Annotated[float | None, typer.Option(help="Share that tests, without folds (0.1).")] = None,
    k_core: Annotated[int | None, typer.Option(help="Users and items keep at least so many interactions.")] = None,
    popularity_cut: Annotated[float | None, typer.Option(help="Keep the top percent of items.")] = None,
    candidates: Annotated[
        int | None, typer.Option(help="Size of candidate sets, such as 20 (1 + 19 negatives).")
    ] = None,
    relevance: Annotated[str | None, typer.Option(help='all, rating, or "rating>=4" (also >, <=, <).')] = None,
    identifier: Annotated[
        str | None, typer.Option(help="title, semantic (3-4 new tokens) or atomic (one): how a model writes an item.")
    ] = None,
    semantic_levels: Annotated[int | None, typer.Option(help="Semantic: tokens an item (3).")] = None,
    semantic_codebook: Annotated[int | None, typer.Option(help="Semantic: different tokens a level (by size).")] = None,
    semantic_embeddings: Annotated[
        str | None, typer.Option(help="Semantic: item_id and embedding in .parquet or .npz, in place of our own.")
    ] = None,
    exclude_history: Annotated[
        str | None, typer.Option(help="auto, yes or no: never recommend items of the history.")
    ] = None,
    collisions: Annotated[str | None, typer.Option(help="Items of one title: suffix, merge or refuse.")] = None,
    drop_invalid: Annotated[
        bool | None, typer.Option("--drop-invalid", help="Leave out unusable titles and events of unknown items.")
    ] = None,
    drop_cold: Annotated[
        bool | None, typer.Option("--drop-cold", help="Leave out items without training interactions, and their rows.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Hugging Face tokenizer that measures titles in the report.")
    ] = None,
    param: ParamOption = None,
    out: OutOption = None,
    seed: SeedOption = 0,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> dict[str, Any]:
    """Turn raw interactions into a prepared dataset: catalogue, windows by split, report.

    Example: recalign prepare recbole ml-100k --task list --history 20 --split user --folds 5 --relevance "rating>=4"
    """
    from recalign import workspace
    from recalign.data.prepare import prepare_dataset
    from recalign.params import parse_assignments

    return prepare_dataset(
        source,
        path,
        out or workspace.home() / "data",
        params=parse_assignments(param or []),
        options={
            "task": task,
            "history": history,
            "min_history": min_history,
            "targets": targets,
            "stride": stride,
            "windows_per_user": windows_per_user,
            "list_length": list_length,
            "split": split,
            "folds": folds,
            "fold": fold,
            "valid_share": valid_share,
            "test_share": test_share,
            "k_core": k_core,
            "popularity_cut": popularity_cut,
            "candidates": candidates,
            "relevance": relevance,
            "identifier": identifier,
            "semantic_levels": semantic_levels,
            "semantic_codebook": semantic_codebook,
            "semantic_embeddings": semantic_embeddings,
            "exclude_history": exclude_history,
            "collisions": collisions,
            "drop_invalid": drop_invalid,
            "drop_cold": drop_cold,
        },
        tokenizer=tokenizer,
        seed=seed,
        overwrite=overwrite,
    )
