"""`recalign explain`: one user's history, the list that a system made, scores and rationales, and what came next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from recalign import console
from recalign.commands.eval import DatasetOption, PredictionsArgument
from recalign.commands.shared_options import JsonOption, QuietOption
from recalign.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from recalign.api import Row

SHOWN = 10
"""Positions of a list that are shown unless told otherwise; those of targets are shown besides."""


def explain(
    run: PredictionsArgument = None,
    *,
    user: Annotated[str | None, typer.Option(help="Raw id of the user (default: that of the first row).")] = None,
    data: DatasetOption = None,
    size: Annotated[
        int, typer.Option(help="Positions of the list to show in the terminal; targets are shown besides.", min=1)
    ] = SHOWN,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> dict[str, Any]:
    """Show what a system recommends to one user, and why where it says so.

    Examples:
    - recalign explain runs/sft/decode-judge-test --user 42

    - recalign explain --user 42 --json
    """
    from recalign.data.dataset import PreparedDataset
    from recalign.evaluation.explanation import explain_row
    from recalign.runs.lineage import of_predictions
    from recalign.runs.predictions import check_made_for, find_predictions, read_predictions
    from recalign.workspace import RunFolder, home

    folder = find_predictions(run)
    lineage = of_predictions(folder)
    dataset = PreparedDataset(Path(data or lineage.data or home() / "data"))
    check_made_for(dataset, RunFolder(folder).record, folder)
    predictions, rows = read_predictions(folder, dataset, lineage.split, lineage.size or 1, rationales=True)
    places = _places(rows, user, folder)
    explained = [explain_row(predictions, place, rows[place], dataset.catalogue) for place in places]
    for each in explained:
        _show(each, size)
    return {"predictions": str(folder), "system": lineage.label, "split": lineage.split, "rows": explained}


def _places(rows: list[Row], user: str | None, folder: Path) -> list[int]:
    """The user's rows.

    Raises:
        UserError: none is; similar ids are suggested.
    """
    wanted = rows[0].user_id if user is None else user
    places = [place for place, row in enumerate(rows) if row.user_id == wanted]
    if not places:
        known = {row.user_id for row in rows}
        hint = did_you_mean(wanted, known) if len(known) <= 1000 else f"It does, for example, those of {min(known)!r}."
        raise UserError(f"{folder} answers no row of a user '{wanted}'.", hint)
    return places


def _show(explained: dict[str, Any], size: int) -> None:
    """Print one row: history, list, rationales."""
    title = f"user {explained['user_id']}, row {explained['row']}"
    if explained["profile"]:
        title += f" ({explained['profile']})"
    history = Table("when", "history, oldest first", "genres", "rating", title=Text(title))
    for event in explained["history"]:
        rating = "" if event["rating"] is None else f"{event['rating']:g}"
        history.add_row(event["when"] or "", Text(event["title"]), Text(", ".join(event["genres"])), rating)
    console.show(history)
    shown = [entry for entry in explained["list"] if entry["rank"] <= size or entry["target"]]
    show_table(shown)
    missed = [target["title"] for target in explained["targets"] if target["gain"] > 0 and target["rank"] is None]
    if missed:
        console.show(Text(f"not in the list: {'; '.join(missed)}"))
    show_rationales(shown)


def show_table(shown: Sequence[Mapping[str, Any]]) -> None:
    """Print positions of a list as a table. Arguments: as `described_list` returns them."""
    marks = [_mark(entry) for entry in shown]
    ranked = Table("rank", "item", "genres", "score", *[""] * any(marks))
    for entry, mark in zip(shown, marks, strict=True):
        name = Text(entry["title"] if entry["title"] is not None else "(no item)")
        style = "bold green" if entry.get("target") else ""
        ranked.add_row(
            str(entry["rank"]),
            name,
            Text(", ".join(entry["genres"])),
            f"{entry['score']:.4f}",
            *[mark] * any(marks),
            style=style,
        )
    console.show(ranked)


def show_rationales(shown: Sequence[Mapping[str, Any]]) -> None:
    """Print the rationale of each position that has one. Arguments: as `described_list` returns them."""
    for entry in shown:
        if entry["rationale"]:
            console.show(Text(f"{entry['rank']}. {entry['title']} {_mark(entry)}".rstrip(), style="bold"))
            console.show(Padding(Text(entry["rationale"]), (0, 0, 1, 4)))


def _mark(entry: Mapping[str, Any]) -> str:
    """What is special about a position."""
    return "target" if entry.get("target") else "in the history" if entry.get("in_history") else ""
