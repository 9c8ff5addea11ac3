"""Per-user metric tables: any reward and any measure, one column each, null where it means nothing for a row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from recalign.api import Catalogue, ListBatch, Predictions, Row
from recalign.errors import UserError
from recalign.evaluation.measures import MEASURES
from recalign.evaluation.significance import Interval, bootstrap_interval
from recalign.metrics.expression import MetricExpression, check_cutoffs, parse_expression

if TYPE_CHECKING:
    import polars as pl

CUTOFFS = (3, 5, 10)
KEYS = ("data", "row", "user_id")
"""What names a row of a per-user table; `data` only where several datasets are pooled."""


def default_metrics(catalogue: Catalogue, list_length: int) -> list[str]:
    """Name what `eval` measures unless told otherwise: cutoffs within the lists, genres only where there are any."""
    cutoffs = [k for k in CUTOFFS if k <= list_length] or [list_length]
    ranking = [f"{name}@{k}" for name in ("ndcg", "recall", "hit") for k in cutoffs]
    genres = ["mgu", "ild"] if catalogue.genre_names else []
    return [*ranking, "mrr", *genres, "popularity", "unseen", "validity", "repeats", "history"]


def split_metrics(text: str) -> list[str]:
    """Split `ndcg@5,novelty(a=1,b=2)` at the commas outside parentheses."""
    return [part for part in (piece.strip() for piece in re.split(r",(?![^()]*\))", text)) if part]


def parse_metrics(names: Sequence[str], catalogue: Catalogue, list_length: int) -> list[MetricExpression]:
    """Parse metrics, bind them to a catalogue and check their cutoffs.

    Raises:
        UserError: no metric, one given twice, an unknown one, `@k` beyond the lists, genres where there are none.
    """
    if not names:
        raise UserError("No metric is asked for.", "Name some, such as --metrics ndcg@5,recall@5.")
    metrics: dict[str, MetricExpression] = {}
    for name in names:
        metric = parse_expression(name, MEASURES)
        if metric.text in metrics:
            raise UserError(f"The metric {metric.text} is asked for twice.", "Name it once.")
        check_cutoffs(metric, list_length)
        metrics[metric.text] = metric.bind(catalogue)
    return list(metrics.values())


def evaluate_lists(
    expression: MetricExpression, items: np.ndarray, lengths: np.ndarray, rows: Sequence[Row]
) -> np.ndarray:
    """Score one list a row, leaving out the rows for which the expression means nothing.

    Args:
        expression: bound to the catalogue.
        items: [U, K] item indices.
        lengths: [U] positions of each list.
        rows: [U] what the lists answer.

    Returns:
        float64 [at most U], in the order of the rows.
    """
    values = expression.score(ListBatch(items, lengths, rows, np.arange(len(items))))
    return values[np.array([expression.defined_for(row) for row in rows], dtype=bool)]


def per_user(
    predictions: Predictions, rows: Sequence[Row], catalogue: Catalogue, metrics: Sequence[str]
) -> pl.DataFrame:
    """Measure one list a row.

    Args:
        predictions: U lists.
        rows: [U] what they answer.
        catalogue: the items.
        metrics: names of metrics or expressions; the columns are named by their canonical texts.

    Returns:
        row, user_id, and one float column a metric, null where it is not defined for the row.

    Raises:
        UserError: as `parse_metrics`; a reward that raises or returns what is not finite.
    """
    import polars as pl

    batch = ListBatch(predictions.items, predictions.lengths, rows, np.arange(len(rows)))
    columns = {"row": [row.index for row in rows], "user_id": [row.user_id for row in rows]}
    frame = pl.DataFrame(columns, schema={"row": pl.Int64, "user_id": pl.String})
    for metric in parse_metrics(metrics, catalogue, predictions.items.shape[1]) if metrics else ():
        defined = pl.Series([metric.defined_for(row) for row in rows], dtype=pl.Boolean)
        values = pl.Series(metric.text, metric.score(batch), dtype=pl.Float64)
        frame = frame.with_columns(values.set(~defined, None))
    return frame


def metric_names(frame: pl.DataFrame) -> list[str]:
    """Name the metric columns of a per-user table."""
    return [name for name in frame.columns if name not in KEYS]


def summarise(frame: pl.DataFrame, seed: int = 0) -> dict[str, Interval]:
    """Mean over rows of each metric, with a 95% interval over users; rows without a value are left out (see `n`)."""
    summary = {}
    for name in metric_names(frame):
        defined = frame.select("user_id", name).drop_nulls()
        summary[name] = bootstrap_interval(defined[name].to_numpy(), seed, users=defined["user_id"].to_numpy())
    return summary
