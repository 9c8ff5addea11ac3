"""From scores to lists: candidates, short lists, batches, ties; recommenders that misbehave are named."""

import numpy as np
import pytest

from recalign.api import INVALID, Recommender
from recalign.errors import UserError
from recalign.evaluation.baselines import RECOMMENDERS
from recalign.recommenders.recommend import checked_scores, fit, recommend, top_items


def test_candidates_limit_the_lists(write_dataset, answer):
    rows = [("u", [0], [1], [1.0], 1.0, [1, 2])]
    data = write_dataset(["a", "b", "c", "d"], [("t", 3, 0), ("t", 2, 1)], rows)
    for name in RECOMMENDERS:
        assert sorted(answer(name, data, 4)[0]) == [1, 2], name


def test_lists_end_where_items_run_out(small, fitted):
    rows = small.rows("test")[:]
    found = recommend(fitted("popularity", small), rows, 8, 6, exclude_history=True)
    assert found.lengths.tolist() == [5, 4, 5, 5]
    assert found.items[1, 4:].tolist() == [INVALID] * 4


def test_batches_change_nothing(small, answer, monkeypatch):
    whole = {name: answer(name, small, 3) for name in RECOMMENDERS}
    monkeypatch.setattr("recalign.recommenders.recommend.BATCH_CELLS", 1)
    assert {name: answer(name, small, 3) for name in RECOMMENDERS} == whole


def test_ties_go_to_the_lower_index(small):
    scores = np.array([[1.0, 2.0, 1.0, 1.0, 2.0, 0.0]])
    assert top_items(scores, small.rows("test")[:1], 3, exclude_history=False).items.tolist() == [[1, 4, 0]]


class Odd(Recommender):
    """Returns what a test wants."""

    values = np.zeros((4, 6))

    def fit(self, data, seed):
        raise KeyError("no such column")

    def scores(self, rows):
        return self.values

    def save(self, folder):
        pass

    def load(self, folder, catalogue):
        pass


def test_the_scores_that_a_recommender_holds_stay_its_own(small):
    odd, rows = Odd(), small.rows("test")[:]
    recommend(odd, rows, 3, 6, exclude_history=True)
    assert np.isfinite(odd.values).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((4, 5)), r"'odd' of module .* returned scores of shape \[4, 5\] for 4 rows and 6 items"),
        (np.full((4, 6), np.nan), r"'odd' of module .* returned NaN for user 'u0' \(row 0\)"),
        (None, "'odd' of module .* raised"),
    ],
)
def test_a_recommender_that_misbehaves_is_named(small, values, message):
    odd = Odd(name="odd")
    odd.values = values if values is not None else "text"
    with pytest.raises(UserError, match=message):
        checked_scores(odd, small.rows("test")[:], 6)


def test_a_fit_that_raises_is_named(small):
    with pytest.raises(UserError, match="'odd' of module .* raised KeyError in fit"):
        fit(Odd(name="odd"), small, 0)
