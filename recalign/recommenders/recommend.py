"""From a dataset to a fitted recommender, and from its scores to ranked lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from recalign.api import INVALID, Predictions, Recommender, Row, TrainingData
from recalign.plugins.registry import blamed, plugin_error

if TYPE_CHECKING:
    from recalign.data.dataset import PreparedDataset

BATCH_CELLS = 4_000_000  # scores held in memory at a time


def fit(recommender: Recommender, dataset: PreparedDataset, seed: int) -> None:
    """Fit a recommender on a dataset's training interactions.

    Args:
        recommender: changed in place.
        dataset: whose training interactions, and validation rows for early stopping, it may see.
        seed: of what it draws.

    Raises:
        UserError: the recommender raises; a damaged dataset.
    """
    data = TrainingData.of(dataset)
    with blamed("recommender", recommender, "fit"):
        recommender.fit(data, seed)


def recommend(
    recommender: Recommender, rows: Sequence[Row], size: int, catalogue_size: int, *, exclude_history: bool
) -> Predictions:
    """Recommend the items that a recommender scores highest, some rows at a time.

    Args:
        recommender: fitted or loaded.
        rows: U rows to answer; a row with candidates is answered from these.
        size: K.
        catalogue_size: I.
        exclude_history: whether what the user consumed before is left out.

    Raises:
        UserError: the recommender raises, or its scores are no float array [B, I] without NaN.
    """
    step = max(1, BATCH_CELLS // max(1, catalogue_size))
    parts = []
    for start in range(0, len(rows), step):
        batch = rows[start : start + step]
        scores = checked_scores(recommender, batch, catalogue_size)
        parts.append(top_items(scores, batch, size, exclude_history=exclude_history))
    return Predictions(
        items=np.concatenate([part.items for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        lengths=np.concatenate([part.lengths for part in parts]),
    )


def checked_scores(recommender: Recommender, rows: Sequence[Row], catalogue_size: int) -> np.ndarray:
    """Return the scores of B rows, float64 [B, I]: a new array, which may be changed.

    Raises:
        UserError: the recommender raises, or returns another shape or NaN.
    """
    with blamed("recommender", recommender, "scores"):
        scores = np.array(recommender.scores(rows), dtype=np.float64)
    if scores.shape != (len(rows), catalogue_size):
        what = f"returned scores of shape {list(scores.shape)} for {len(rows)} rows and {catalogue_size} items"
        raise plugin_error("recommender", recommender, what)
    if np.isnan(scores).any():
        row = rows[int(np.flatnonzero(np.isnan(scores).any(axis=1))[0])]
        raise plugin_error("recommender", recommender, f"returned NaN for user '{row.user_id}' (row {row.index})")
    return scores


def top_items(scores: np.ndarray, rows: Sequence[Row], size: int, *, exclude_history: bool) -> Predictions:
    """Rank the best `size` items of each row; ties go to the lower item index.

    Args:
        scores: [B, I]; changed in place.
        rows: [B].
        size: K; a list is shorter where fewer items may be recommended.
        exclude_history: whether what the user consumed before is left out.
    """
    for place, row in enumerate(rows):
        if row.candidates is not None:
            others = np.ones(scores.shape[1], dtype=bool)
            others[row.candidates] = False
            scores[place, others] = -np.inf
        if exclude_history:
            scores[place, row.consumed] = -np.inf
    wide = min(size, scores.shape[1])
    # Everything that reaches the K-th best score is kept, so that a tie there is broken by index, not by chance.
    threshold = -np.partition(-scores, wide - 1, axis=1)[:, wide - 1]
    items = np.full((len(rows), size), INVALID, dtype=np.int64)
    values = np.zeros((len(rows), size))
    lengths = np.zeros(len(rows), dtype=np.int64)
    for place, bar in enumerate(threshold):
        reached = np.flatnonzero((scores[place] >= bar) & (scores[place] > -np.inf))
        best = reached[np.argsort(-scores[place, reached], kind="stable")[:size]]
        items[place, : len(best)], values[place, : len(best)] = best, scores[place, best]
        lengths[place] = len(best)
    return Predictions(items, values, lengths)
