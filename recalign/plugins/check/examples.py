"""Made-up data that plugins are tried on: a catalogue, rows, ranked lists."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recalign.api import INVALID, Catalogue, ListBatch, Row

ITEMS, GROUPS, SAMPLES, REFERENCES, TOKENS, VOCABULARY, HIDDEN = 8, 2, 4, 6, 5, 11, 8


def catalogue() -> Catalogue:
    """Return 8 items: genres, one without any; the first is the most popular, the last unseen in training."""
    return Catalogue(
        item_ids=[str(item) for item in range(ITEMS)],
        titles=[f"Title {item}" for item in range(ITEMS)],
        genres=[("Drama",), ("Comedy",), ("Drama", "Comedy"), ()] * (ITEMS // 4),
        texts=[""] * ITEMS,
        popularity=np.arange(ITEMS)[::-1].astype(np.int64),
    )


def rows() -> list[Row]:
    """Return two rows: one with a target that is not relevant, one with graded targets."""
    return [
        Row(0, "u0", np.array([0, 1]), np.array([2, 3]), np.array([1.0, 0.0]), 0.0),
        Row(1, "u1", np.array([4]), np.array([5, 6]), np.array([1.0, 3.0]), 1.0),
    ]


def lists() -> ListBatch:
    """Return two groups: full lists, a repeated item, text that is no item, a short list, an empty one."""
    first, second = rows()
    items = [[2, 3, 4], [5, 5, 2], [INVALID, 2, 7], [6, INVALID, INVALID], [0, 6, 5], [INVALID] * 3]
    return ListBatch(
        items=np.array(items, dtype=np.int64),
        lengths=np.array([3, 3, 3, 1, 3, 0]),
        rows=[first] * 3 + [second] * 3,
        groups=np.array([0, 0, 0, 1, 1, 1]),
        logps=np.linspace(-6.0, -1.0, len(items)),
    )


def beams() -> ListBatch:
    """Return the same rows' groups as the ranked titles of a beam search."""
    samples = lists()
    items = np.array([[2], [4], [0], [7], [5], [6]], dtype=np.int64)
    ranks = np.array([0, 1, 2, 0, 1, 2])
    return replace(samples, items=items, lengths=np.ones(len(items), dtype=np.int64), ranks=ranks)
