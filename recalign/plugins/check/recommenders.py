"""The trial of recommenders: fitted on a few made-up interactions, saved and loaded again."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from recalign.api import Recommender, Row, TrainingData
from recalign.plugins.check import examples


def problems(recommender: Recommender) -> Iterator[str]:
    """Fit, score, save, load and score again; yield one line per problem."""
    rows = [*examples.rows(), Row(2, "u2", np.array([], dtype=np.int64), np.array([1]), np.array([1.0]), 2.0)]
    loaded = copy.deepcopy(recommender)
    recommender.fit(training(), seed=0)
    scores = np.array(recommender.scores(rows))
    expected = (len(rows), examples.ITEMS)
    if scores.shape != expected:
        yield f"scores returns shape {scores.shape} for {expected[0]} rows and {expected[1]} items"
        return
    if np.isnan(scores.astype(np.float64)).any():
        yield "scores returns NaN (one of the rows has no history)"
    if not np.array_equal(scores, recommender.scores(rows), equal_nan=True):
        yield "scores gives two values for the same rows"
    if not np.allclose(scores[:1], recommender.scores(rows[:1]), rtol=1e-3, atol=1e-4, equal_nan=True):
        yield "scores of a row depend on the rows beside it"
    with tempfile.TemporaryDirectory() as folder:
        recommender.save(Path(folder))
        loaded.load(Path(folder), examples.catalogue())
    if not np.array_equal(scores, loaded.scores(rows), equal_nan=True):
        yield "scores differ after save and load"


def training() -> TrainingData:
    """Return five users' interactions, which leave one item unseen, and two validation rows."""
    sequences = [[0, 1, 2], [1, 2, 3, 4], [0, 2, 5], [6, 0], [1, 4, 6]]
    users = np.repeat(np.arange(len(sequences)), [len(items) for items in sequences])
    return TrainingData(
        catalogue=examples.catalogue(),
        users=users,
        items=np.concatenate(sequences).astype(np.int64),
        timestamps=np.arange(len(users), dtype=np.float64),
        validation=examples.rows,
        user_ids=[f"u{user}" for user in range(len(sequences))],
    )
