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
    task: Annotated[
        str | None,
        typer.Option(help="next: one target a row; list: several (default: as the source suggests, else next)."),
    ] = None,
    history: Annotated[int | None, typer.Option(help="Items of a history at most (10).")] = None,
    min_history: Annotated[int | None, typer.Option(help="Items of a history at least (1).")] = None,
    targets: Annotated[int | None, typer.Option(help="Targets a row: 1 for next, 10 for list.")] = None,
    stride: Annotated[
        int | None, typer.Option(help="Events between training windows: 1 for next, half the targets for list.")
    ] = None,
    windows_per_user: Annotated[
        int | None, typer.Option(help="Training windows a user at most, evenly spread (default: all).")
    ] = None,
    list_length: Annotated[int | None, typer.Option(help="Titles of a response: 1 for next, 5 for list.")] = None,
    split: Annotated[
        str | None,
        typer.Option(help="What is held out: time (8:1:1, default), user, leave-one-out, or given (windows)."),
    ] = None,
    folds: Annotated[
        int | None, typer.Option(help="Split user: number of folds (default: as --test-share says).")
    ] = None,
    fold: Annotated[
        int | None, typer.Option(help="Split user: the fold that is tested, counted from 1 (default).")
    ] = None,
    valid_share: Annotated[
        float | None, typer.Option(help="Share of time, users or given windows that validates (0.1).")
    ] = None,
    test_share: Annotated[
        float | None, typer.Option(help="Share of time or users that tests, without folds (0.1).")
    ] = None,
    k_core: Annotated[int | None, typer.Option(help="Users and items keep at least so many interactions (0).")] = None,
    popularity_cut: Annotated[
        float | None,
        typer.Option(help="Keep the top percent of items by interactions (default: all stay)."),
    ] = None,
    duplicates: Annotated[
        str | None,
        typer.Option(
            help="Repeated interactions: keep (default), drop (exact duplicates once), or only a user's first or last "
            "with an item; before the popularity cut and the k-core."
        ),
    ] = None,
    candidates: Annotated[
        int | None, typer.Option(help="Size of candidate sets, such as 20 (1 + 19 negatives); default: none.")
    ] = None,
    relevance: Annotated[
        str | None,
        typer.Option(help='Targets that rewards count: all (default), rating, or "rating>=4" (also >, <=, <).'),
    ] = None,
    identifier: Annotated[
        str | None,
        typer.Option(help="How a model writes an item: title (default), semantic (3-4 new tokens) or atomic (one)."),
    ] = None,
    semantic_levels: Annotated[int | None, typer.Option(help="Semantic: tokens an item (3).")] = None,
    semantic_codebook: Annotated[int | None, typer.Option(help="Semantic: different tokens a level (by size).")] = None,
    semantic_embeddings: Annotated[
        str | None, typer.Option(help="Semantic: item_id and embedding in .parquet or .npz, in place of our own.")
    ] = None,
    exclude_history: Annotated[
        str | None,
        typer.Option(help="Never recommend items of the history: yes, no or auto (default: as training targets do)."),
    ] = None,
    collisions: Annotated[
        str | None, typer.Option(help="Items of titles that look alike: suffix (default), merge or refuse.")
    ] = None,
    drop_invalid: Annotated[
        bool | None,
        typer.Option(
            "--drop-invalid",
            help="Leave out records that cannot be read, unusable titles and events of unknown items; of contradicting "
            "rows of an item, the first counts.",
        ),
    ] = None,
    drop_cold: Annotated[
        bool | None, typer.Option("--drop-cold", help="Leave out items without training interactions, and their rows.")
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
) -> dict[str, Any]:
    """Turn raw interactions into a prepared dataset: catalogue, windows by split, report.

    Example: recalign prepare recbole ml-100k --task list --history 20 --split user --folds 5 --relevance "rating>=4"
    """
    from recalign import console, workspace
    from recalign.data.prepare import prepare_dataset
    from recalign.params import parse_assignments

    results = prepare_dataset(
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
            "duplicates": duplicates,
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
    if not results["reused"]:
        rows = {split: f"{figures['rows']:,} {split}" for split, figures in results["counts"]["rows"].items()}
        console.say(f"{results['path']}: {rows['train']}, {rows['valid']} and {rows['test']} rows.")
    return results
