"""How often each item is recommended, which corpus-level metrics count."""

from __future__ import annotations

import numpy as np

from recalign.api import Predictions


def recommendation_counts(predictions: Predictions, cutoff: int | None, catalogue_size: int) -> np.ndarray:
    """Return how many positions of all lists, cut at `@k`, name each item: int64 [I]. Copies count each time."""
    items = predictions.items if cutoff is None else predictions.items[:, :cutoff]
    inside = np.arange(items.shape[1]) < predictions.lengths[:, None]
    return np.bincount(items[inside & (items >= 0)], minlength=catalogue_size)
