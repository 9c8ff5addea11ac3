"""What became of a run's questions, by class: the table that is shown and the figures that its record keeps."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from rich.table import Table

from recalign.rationales.records import AnswerRecord

OUTCOMES = {"kept": "kept", "dropped": "wrong decision", "off_format": "off format", "malformed": "no text"}
"""Outcome -> heading."""
CLASSES = {True: "positive", False: "negative"}


def count_outcomes(records: Collection[AnswerRecord]) -> dict[str, dict[str, int]]:
    """Count answers: class of the candidate -> asked, and each outcome."""
    counts = {name: {"asked": 0, **dict.fromkeys(OUTCOMES, 0)} for name in CLASSES.values()}
    for record in records:
        row = counts[CLASSES[record.positive]]
        row["asked"] += 1
        row[record.outcome] += 1
    return counts


def outcome_table(counts: dict[str, dict[str, int]]) -> Table:
    """Lay out the counts, with the share that was kept."""
    table = Table("candidate", "asked", *OUTCOMES.values(), "share kept")
    total: dict[str, Any] = {name: sum(row[name] for row in counts.values()) for name in ("asked", *OUTCOMES)}
    for name, row in {**counts, "all": total}.items():
        share = f"{row['kept'] / row['asked']:.1%}" if row["asked"] else ""
        table.add_row(name, *(f"{row[each]:,}" for each in ("asked", *OUTCOMES)), share)
    for column in table.columns[1:]:
        column.justify = "right"
    return table
