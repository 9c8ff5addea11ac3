"""Shares of a list's positions, which several metrics are."""

from __future__ import annotations

import numpy as np

from recalign.api import CutLists


def share_of_positions(marked: np.ndarray, heads: CutLists) -> np.ndarray:
    """Return the share of each list's positions that are marked; an empty list has none.

    Args:
        marked: [N, k] bool; False beyond the list's end.
        heads: N lists.

    Returns:
        float64 [N].
    """
    return marked.sum(axis=1) / np.maximum(heads.lengths, 1)
