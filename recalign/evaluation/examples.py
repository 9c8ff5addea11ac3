"""A few users' lists at the end of `decode`: what they had, what they are recommended, and what of it they chose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recalign import console
from recalign.api import Catalogue, Row
from recalign.runs.predictions import PREDICTIONS_FILE

EXAMPLES, RECENT, SHOWN = 3, 3, 5
"""Users, items of a history and positions of a list that are shown."""


def example_lists(folder: Path, rows: Sequence[Row], catalogue: Catalogue, seed: int = 0) -> list[dict[str, Any]]:
    """Read some of the lists that a decode run wrote.

    Args:
        folder: of the run.
        rows: [U] that it answered, in the order of its file.
        catalogue: the items.
        seed: draws the rows.

    Returns:
        At most three rows: row, user_id, the titles of the history's last items, oldest first, the list's first
        positions (rank, title or None where text names no item, hit), and the titles of relevant targets that the
        whole list lacks.
    """
    import polars as pl

    places = sorted(np.random.default_rng(seed).permutation(len(rows))[:EXAMPLES].tolist())
    lists = pl.read_parquet(folder / PREDICTIONS_FILE, columns=["items"])["items"]
    return [example_list(rows[place], lists[place].to_list(), catalogue) for place in places]


def example_list(row: Row, items: Sequence[int], catalogue: Catalogue) -> dict[str, Any]:
    """Describe one list.

    Args:
        row: that it answers.
        items: its items, best first; below 0 where text names no item.
        catalogue: the items.

    Returns:
        As `example_lists` says.
    """
    relevant = row.relevant.tolist()
    return {
        "row": row.index,
        "user_id": row.user_id,
        "history": [catalogue.titles[item] for item in row.history[-RECENT:]],
        "recommended": [
            {"rank": rank, "title": catalogue.titles[item] if item >= 0 else None, "hit": item in relevant}
            for rank, item in enumerate(items[:SHOWN], 1)
        ],
        "missed": [catalogue.titles[item] for item in relevant if item not in items],
    }


def show_examples(examples: Sequence[dict[str, Any]]) -> None:
    """Print such lists, hits marked."""
    from rich.table import Table
    from rich.text import Text

    if not examples:
        return
    some_missed = any(example["missed"] for example in examples)
    table = Table("user", "had, latest last", "is recommended", *(["chose, not in the list"] if some_missed else []))
    for example in examples:
        listed = Text()
        for entry in example["recommended"]:
            mark = " (hit)" if entry["hit"] else ""
            style = "bold green" if entry["hit"] else ""
            listed.append(f"{entry['rank']}. {entry['title'] or '(no item)'}{mark}\n", style=style)
        listed.rstrip()
        missed = example["missed"][:SHOWN]
        more = [f"and {len(example['missed']) - SHOWN} more"] if len(example["missed"]) > SHOWN else []
        table.add_row(
            Text(example["user_id"]),
            Text("\n".join(example["history"])),
            listed,
            *([Text("\n".join([*missed, *more]))] if some_missed else []),
        )
    console.show(table)
