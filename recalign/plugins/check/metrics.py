"""The trial of metrics: per-list ones on samples, cut samples and beams, corpus-level ones on predictions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from recalign.api import AnyMetric, CorpusMetric, ListBatch, Metric, Predictions
from recalign.errors import UserError
from recalign.plugins.check import examples


def problems(metric: AnyMetric) -> Iterator[str]:
    """Score made-up lists, twice; yield one line per problem."""
    for make, cutoff in [(examples.lists, None), (examples.lists, 2), (examples.beams, None)]:
        if cutoff and not metric.takes_cutoff:
            continue
        try:
            metric.bind(examples.catalogue(), cutoff)
        except UserError:  # it wants something that no default can name, such as a file
            return
        where = f"score (@{cutoff})" if cutoff else "score"
        lists, again = make(), make()
        values, others = scored(metric, lists), scored(metric, again)
        expected = () if isinstance(metric, CorpusMetric) else (len(lists),)
        if values.shape != expected:
            yield f"{where} returns shape {values.shape} for {len(lists)} lists; expected is {expected}"
        elif (broken := ~np.isfinite(values) & defined(metric, lists)).any():
            yield f"{where} returns NaN or infinity for {lists.items[broken].tolist()}"
        elif not np.array_equal(values, others, equal_nan=True):
            yield f"{where} gives two values for the same lists"
        if not np.array_equal(lists.items, make().items):
            yield f"{where} changes the lists that it is handed"


def defined(metric: AnyMetric, lists: ListBatch) -> np.ndarray:
    """[N] whether a per-list metric has a value for the row of each list; true of a corpus-level one, []."""
    if isinstance(metric, CorpusMetric):
        return np.array(True)
    assert isinstance(metric, Metric)
    return np.array([metric.defined_for(row) for row in lists.rows])


def scored(metric: AnyMetric, lists: ListBatch) -> np.ndarray:
    """Values of a per-list metric, [N], or the one value of a corpus-level one, []."""
    if isinstance(metric, CorpusMetric):
        predictions = Predictions(lists.items, np.zeros(lists.items.shape), lists.lengths)
        return np.asarray(metric.score(predictions, lists.rows))
    assert isinstance(metric, Metric)
    if "exact" in metric.reads:
        lists = replace(lists, exact=Predictions(lists.items[::-1], np.zeros(lists.items.shape), lists.lengths[::-1]))
    return np.asarray(metric.score(lists))
