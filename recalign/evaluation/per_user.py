"""Per-user metric tables: any metric expression, one column each, null where it means nothing for a row."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from recalign.api import Catalogue, ListBatch, Predictions, Row
from recalign.errors import UserError
from recalign.evaluation.significance import Interval, bootstrap_interval
from recalign.metrics.expression import CorpusExpression, MetricExpression, check_cutoffs, parse_metric

if TYPE_CHECKING:
    import polars as pl

CUTOFFS = (3, 5, 10)
KEYS = ("data", "row", "user_id")
"""What names a row of a per-user table; `data` only where several datasets are aggregated."""


def default_metrics(catalogue: Catalogue, list_length: int, cutoffs: Sequence[int] = CUTOFFS) -> list[str]:
    """Name what `eval` measures unless told otherwise: cutoffs within the lists, genres only where there are any."""
    cutoffs = [k for k in cutoffs if k <= list_length] or [list_length]
    ranking = [f"{name}@{k}" for name in ("ndcg", "recall", "hit") for k in cutoffs]
    genres = ["mgu", "ild"] if catalogue.genre_names else []
    return [*ranking, "mrr", *genres, "popularity", "unseen", "validity", "repeats", "history"]


def split_metrics(text: str) -> list[str]:
    """Split `ndcg@5,novelty(a=1,b=2)` at the commas outside parentheses."""
    return [part for part in (piece.strip() for piece in re.split(r",(?![^()]*\))", text)) if part]


def parse_metrics(
    names: Sequence[str], catalogue: Catalogue, list_length: int, provided: Collection[str] = ()
) -> tuple[list[MetricExpression], list[CorpusExpression]]:
    """Parse metrics, bind them to a catalogue and check their cutoffs.

    Args:
        names: metrics, weighted sums of them, corpus-level metrics.
        catalogue: of the dataset that they are to measure.
        list_length: K.
        provided: what is at hand besides lists and rows: `exact` where exact predictions are.

    Returns:
        Per-list expressions, and corpus-level ones.

    Raises:
        UserError: no metric, one named twice, an unknown one, `@k` beyond the lists, genres where there are none, one
            that needs what is not provided.
    """
    if not names:
        raise UserError("No metric is asked for.", "Name some, such as --metrics ndcg@5,recall@5.")
    metrics: dict[str, MetricExpression | CorpusExpression] = {}
    for name in names:
        metric = parse_metric(name, provided)
        if metric.text in metrics:
            raise UserError(f"The metric {metric.text} is asked for twice.", "Name it once.")
        check_cutoffs(metric, list_length)
        metrics[metric.text] = metric.bind(catalogue)
    per_list = [metric for metric in metrics.values() if isinstance(metric, MetricExpression)]
    return per_list, [metric for metric in metrics.values() if isinstance(metric, CorpusExpression)]


def evaluate_lists(
    expression: MetricExpression, items: np.ndarray, lengths: np.ndarray, rows: Sequence[Row]
) -> np.ndarray:
    """Score one list per row, leaving out the rows for which the expression means nothing.

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
    predictions: Predictions, rows: Sequence[Row], metrics: Sequence[MetricExpression], exact: Predictions | None = None
) -> pl.DataFrame:
    """Measure one list per row.

    Args:
        predictions: U lists.
        rows: [U] what they answer.
        metrics: bound to the catalogue; the columns are named by their canonical texts.
        exact: the exact decoder's U lists by the same model; without them what reads them has no value.

    Returns:
        row, user_id, and one float column per metric, null where it is not defined for the row.

    Raises:
        UserError: a metric raises or returns what is not finite.
    """
    import polars as pl

    batch = ListBatch(predictions.items, predictions.lengths, rows, np.arange(len(rows)), exact=exact)
    columns = {"row": [row.index for row in rows], "user_id": [row.user_id for row in rows]}
    frame = pl.DataFrame(columns, schema={"row": pl.Int64, "user_id": pl.String})
    for metric in metrics:
        if exact is None and "exact" in metric.reads:
            frame = frame.with_columns(pl.lit(None, pl.Float64).alias(metric.text))
            continue
        defined = pl.Series([metric.defined_for(row) for row in rows], dtype=pl.Boolean)
        values = pl.Series(metric.text, metric.score(batch), dtype=pl.Float64)
        frame = frame.with_columns(values.set(~defined, None))
    return frame


def metric_names(frame: pl.DataFrame) -> list[str]:
    """Name the metric columns of a per-user table."""
    return [name for name in frame.columns if name not in KEYS]


def summarise(frame: pl.DataFrame, seed: int = 0) -> dict[str, Interval]:
    """Return each metric's mean over rows, with a 95% interval over users; rows without a value are left out (`n`)."""
    summary = {}
    for name in metric_names(frame):
        defined = frame.select("user_id", name).drop_nulls()
        summary[name] = bootstrap_interval(defined[name].to_numpy(), seed, users=defined["user_id"].to_numpy())
    return summary
