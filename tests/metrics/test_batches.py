import time

import numpy as np

from recalign.api import Catalogue, ListBatch, Row
from recalign.metrics.batches import distinct_rows, first_positions, flatten
from recalign.metrics.expression import parse_reward


def test_first_positions_marks_each_value_once():
    marks = first_positions(np.array([[3, 1, 3, 1], [2, 2, 2, 2]]))
    assert marks.tolist() == [[True, True, False, False], [True, False, False, False]]


def test_runs_of_one_row_collapse(make_row):
    first, second = make_row(index=0), make_row(index=1)
    rows, index = distinct_rows([first, first, second, first])
    assert [row.index for row in rows] == [0, 1, 0]
    assert index.tolist() == [0, 0, 1, 2]


def test_flatten_keeps_empty_arrays_as_empty_segments():
    values, bounds = flatten([np.array([1, 2]), np.array([], dtype=np.int64), np.array([3])])
    assert values.tolist() == [1, 2, 3]
    assert bounds.tolist() == [0, 2, 2, 3]


def test_thousands_of_lists_cost_milliseconds():
    rng = np.random.default_rng(0)
    names = [str(item) for item in range(1000)]
    genres = [tuple(np.array(list("abcdefghijklmnopqr"))[rng.random(18) < 0.15]) for _ in names]
    catalogue = Catalogue(names, names, genres, names, np.ones(1000, dtype=np.int64))
    rows = [Row(i, str(i), rng.integers(0, 1000, 50), rng.integers(0, 1000, 10), np.ones(10), 0.0) for i in range(256)]
    items = rng.integers(0, 1000, (4096, 10))
    batch = ListBatch(items, np.full(4096, 10), [row for row in rows for _ in range(16)], np.arange(4096) // 16)
    for text in ("ndcg@5", "recall@5", "mgu", "ild"):
        expression = parse_reward(text).bind(catalogue)
        expression.score(batch)
        start = time.perf_counter()
        expression.score(batch)
        assert time.perf_counter() - start < 0.25, text  # about 5 to 30 ms; a loop over lists takes seconds
