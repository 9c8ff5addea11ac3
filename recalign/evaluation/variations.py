"""What varied rows do to one system: every metric of their lists, the positive's rank, and whether the list changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recalign.api import Predictions, Row
from recalign.errors import UserError
from recalign.evaluation.per_user import per_user
from recalign.metrics.expression import MetricExpression
from recalign.runs.predictions import find_variations, read_predictions

if TYPE_CHECKING:
    import polars as pl

    from recalign.data.dataset import PreparedDataset


def measure_variations(
    folder: Path,
    dataset: PreparedDataset,
    split: str,
    predictions: Predictions,
    rows: Sequence[Row],
    metrics: Sequence[MetricExpression],
) -> pl.DataFrame | None:
    """Measure the lists that a system gave to varied rows, by the targets of the rows as they are.

    Args:
        folder: the decode run's.
        dataset: that it was made for.
        split: whose rows it answers.
        predictions: U lists for the rows as they are.
        rows: [U]; varied rows of others are left out.
        metrics: bound to the catalogue.

    Returns:
        variation, value, rank (of the first relevant target, from 1; null where the list has none), moved (whether the
        list is another one than the row had as it is), and the columns of `per_user`; None where nothing was varied.

    Raises:
        UserError: a file is damaged, or answers no row of `rows`.
    """
    import polars as pl

    places = {row.index: place for place, row in enumerate(rows)}
    frames = []
    for name, value, where in find_variations(folder):
        lists, answered = read_predictions(where, dataset, split, predictions.items.shape[1])
        own = [(place, places[row.index]) for place, row in enumerate(answered) if row.index in places]
        if not own:
            raise UserError(f"{where} answers no row that {folder} answers.", "Decode again.")
        mine, theirs = (np.array(each) for each in zip(*own, strict=True))
        size = predictions.items.shape[1]  # no longer than what they are held against
        lengths = np.minimum(lists.lengths[mine], size)
        varied = Predictions(lists.items[mine, :size], lists.scores[mine, :size], lengths)
        same = [rows[place] for place in theirs]
        found = per_user(varied, same, metrics)
        ranks = [_rank(items, row) for items, row in zip(varied.items, same, strict=True)]
        moved = (varied.items != predictions.items[theirs]).any(axis=1)
        facts = (
            pl.lit(name).alias("variation"),
            pl.lit(value).alias("value"),
            pl.Series("rank", ranks, pl.Float64),
            pl.Series("moved", moved.astype(np.float64)),
        )
        frames.append(found.select(*facts, pl.all()))
    return pl.concat(frames) if frames else None


def _rank(items: np.ndarray, row: Row) -> float | None:
    """Place of the first relevant target in a list, from 1."""
    hits = np.flatnonzero(np.isin(items, row.relevant))
    return float(hits[0] + 1) if len(hits) else None
