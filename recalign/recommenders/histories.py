"""Histories as vectors over the items, which item-kNN and TF-IDF compare items with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from recalign.api import Row

if TYPE_CHECKING:
    from scipy.sparse import csr_array

DECAY = 0.8  # weight of a history item, per step of age


def history_weights(rows: Sequence[Row], size: int) -> csr_array:
    """Return the weights of the histories' items, DECAY^age: sparse [B, I]."""
    from scipy.sparse import csr_array

    lengths = [len(row.history) for row in rows]
    weights = np.concatenate([DECAY ** np.arange(length - 1, -1, -1) for length in lengths] or [np.empty(0)])
    items = np.concatenate([row.history for row in rows] or [np.empty(0, dtype=np.int64)])
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    matrix = csr_array((weights, items, bounds), shape=(len(rows), size))
    matrix.sum_duplicates()
    return matrix
