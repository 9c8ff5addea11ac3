"""Rows with fewer items left than an objective needs: found before a run, not in the middle of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow.compute as pc

from recalign.api import Row
from recalign.data.dataset import Rows


def fewest_available(
    rows: Sequence[Row],
    needed: int,
    candidates: np.ndarray,
    barred: Callable[[Row], np.ndarray],
    indices: np.ndarray | None = None,
) -> tuple[Row, int] | None:
    """Find the row with the fewest items left, where those are fewer than needed.

    Args:
        rows: a split, or some rows.
        needed: how many items each row needs.
        candidates: [I] bool, the items to choose from.
        barred: items of a row that do not count: at most those of its history, earlier history and targets, and those
            that are no candidates.
        indices: look at these rows only.

    Returns:
        The first such row and how many items it has left, or None where all rows have enough.
    """
    if isinstance(rows, Rows) and _longest(rows) is not None and int(candidates.sum()) - _longest(rows) >= needed:
        return None  # without a look at every row
    fewest: tuple[Row, int] | None = None
    for index in range(len(rows)) if indices is None else indices:
        row = rows[int(index)]
        left = int(candidates.sum()) - int(candidates[np.unique(barred(row))].sum())
        if left < (needed if fewest is None else fewest[1]):
            fewest = row, left
    return fewest


def _longest(rows: Rows) -> int | None:
    """Most items that a row of a split can name at all; None where candidates leave out more."""
    table = rows.table
    if "candidates" in table.column_names:
        return None
    named = [name for name in ("history", "earlier", "targets") if name in table.column_names]
    return sum(pc.max(pc.list_value_length(table.column(name))).as_py() or 0 for name in named)
