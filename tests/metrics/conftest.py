"""A five-item catalogue with genres, and small ways to make rows and lists."""

import numpy as np
import pytest

from recalign.api import INVALID, Catalogue, ListBatch, Predictions, Row


@pytest.fixture
def catalogue():
    return Catalogue(
        item_ids=["a", "b", "c", "d", "e"],
        titles=["A", "B", "C", "D", "E"],
        genres=[("x",), ("x", "y"), ("y",), ("z",), ()],
        texts=[""] * 5,
        popularity=np.array([5, 4, 3, 2, 0]),
    )


@pytest.fixture
def make_row():
    def make(targets=(), gains=None, history=(0,), index=0):
        targets = np.array(targets, dtype=np.int64)
        gains = np.ones(len(targets)) if gains is None else np.array(gains, dtype=np.float64)
        return Row(index, f"u{index}", np.array(history, dtype=np.int64), targets, gains, 0.0)

    return make


@pytest.fixture
def make_lists():
    def make(lists, rows):
        width = max([len(items) for items in lists], default=0)
        items = np.full((len(lists), width), INVALID, dtype=np.int64)
        for index, values in enumerate(lists):
            items[index, : len(values)] = values
        lengths = np.array([len(values) for values in lists], dtype=np.int64)
        rows = list(rows) if isinstance(rows, (list, tuple)) else [rows] * len(lists)
        return ListBatch(items, lengths, rows, np.arange(len(lists)))

    return make


@pytest.fixture
def make_predictions(make_lists):
    def make(lists):
        batch = make_lists(lists, [None] * len(lists))
        return Predictions(batch.items, np.zeros(batch.items.shape), batch.lengths)

    return make
