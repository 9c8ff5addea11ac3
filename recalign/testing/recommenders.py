"""The trial of recommenders: edge cases of made-up interactions, then the embedded dataset as `baseline` takes it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from recalign.api import Recommender, TrainingData
from recalign.plugins.check import recommenders
from recalign.testing.example import example_dataset, example_rows


def problems(recommender: Recommender) -> Iterator[str]:
    """Try made-up data; where that works, learn from the embedded dataset, too; yield one line per problem."""
    found = list(recommenders.problems(recommender))
    yield from found
    if found:
        return
    dataset, rows = example_dataset("next"), example_rows("next")
    recommender.fit(TrainingData.of(dataset), seed=0)
    scores = np.asarray(recommender.scores(rows))
    if scores.shape != (len(rows), len(dataset.catalogue)):
        yield (
            f"scores returns shape {scores.shape} for {len(rows)} rows and {len(dataset.catalogue)} items of the "
            "embedded dataset, after it was fitted a second time"
        )
    elif np.isnan(scores.astype(np.float64)).any():
        yield "scores returns NaN on the embedded dataset"
