import numpy as np
import pytest

from recalign.recommenders.histories import DECAY


def test_scores_by_hand(small, fitted):
    scores = fitted("item-knn", small).scores(small.rows("test")[1:2])[0]
    # history [0, 1], weights .8, 1; counts 3 2 1 1 1 0; item 2 is one step from 1 and two from 0, in one sequence
    assert scores[2] == pytest.approx(DECAY * np.sqrt(0.5) / np.sqrt(3) + 1.0 / np.sqrt(2), abs=1e-8)
    assert scores[4] == pytest.approx(DECAY * 1.0 / np.sqrt(3), abs=1e-8)
    assert scores[5] == 0


def test_popularity_decides_where_the_history_knows_no_neighbour(write_dataset, answer):
    data = write_dataset(["a", "b", "c"], [("t", 1, 0), ("s", 1, 0), ("v", 2, 0)], [("u", [0], [1], [1.0], 1.0)])
    assert answer("item-knn", data, 2) == [[1, 2]]
