"""The trial of metrics: the edge cases of made-up lists, then the embedded dataset as `eval` takes it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from recalign.api import AnyMetric, ListBatch, Predictions
from recalign.errors import UserError
from recalign.plugins.check import metrics
from recalign.testing.example import example_dataset, example_rows


def problems(metric: AnyMetric) -> Iterator[str]:
    """Try made-up lists; where that works, score lists of the embedded dataset; yield one line per problem."""
    found = list(metrics.problems(metric))
    yield from found
    if found:
        return
    for task in ("list", "rank"):
        catalogue, rows = example_dataset(task).catalogue, example_rows(task)
        metric = type(metric)(metric.params, name=metric.name)  # one is bound once
        try:
            metric.bind(catalogue, None)
        except UserError:  # it wants something that no default can name, such as a file
            return
        popular = np.argsort(-catalogue.popularity, kind="stable")
        items = np.stack([popular[~np.isin(popular, row.consumed)][:5] for row in rows])
        lengths = np.full(len(rows), items.shape[1])
        exact = Predictions(items, np.zeros(items.shape), lengths)
        lists = ListBatch(items, lengths, rows, np.arange(len(rows)), exact=exact)
        if (~np.isfinite(metrics.scored(metric, lists)) & metrics.defined(metric, lists)).any():
            yield f"score returns NaN or infinity for lists of the embedded dataset (task {task})"
