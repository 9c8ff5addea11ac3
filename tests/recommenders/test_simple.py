import numpy as np
import pytest

from recalign.api import INVALID
from recalign.errors import UserError
from recalign.recommenders.simple import BASELINES, DECAY, Training, item_knn, recommend, title_words, top_items


def lists(predictions):
    return [items[:length].tolist() for items, length in zip(predictions.items, predictions.lengths, strict=True)]


def test_popularity_ranks_by_training_interactions(small):
    rows = list(small.rows("test"))
    found = recommend("popularity", small, rows, 3, exclude_history=False)
    assert lists(found) == [[0, 1, 2]] * 4  # 3, 2, then ties by index
    assert found.scores[0].tolist() == [3.0, 2.0, 1.0]


def test_history_is_left_out_as_the_dataset_says(small):
    rows = list(small.rows("test"))
    assert lists(recommend("popularity", small, rows, 2)) == [[1, 2], [2, 3], [0, 1], [0, 1]]


def test_recent_popularity_counts_only_what_came_just_before_the_row(write_dataset, monkeypatch):
    monkeypatch.setattr("recalign.recommenders.simple.RECENT", 2)
    events = [("a", 0, 1), ("a", 0, 2), ("b", 0, 3), ("b", 1, 4), ("c", 2, 5), ("c", 2, 6)]
    rows = [("u", [], [1], [1.0], 4.5), ("v", [], [1], [1.0], 9.0), ("w", [], [1], [1.0], 0.0)]
    data = write_dataset(["a", "b", "c"], events, rows)
    found = recommend("recent popularity", data, list(data.rows("test")), 3)
    assert lists(found) == [[0, 1, 2], [2, 0, 1], [0, 2, 1]]


def test_item_knn_by_hand(small):
    scores = item_knn(Training.of(small))(list(small.rows("test"))[1:2])[0]
    # history [0, 1], weights .8, 1; counts 3 2 1 1 1 0; item 2 is one step from 1 and two from 0, in one sequence
    assert scores[2] == pytest.approx(DECAY * np.sqrt(0.5) / np.sqrt(3) + 1.0 / np.sqrt(2), abs=1e-8)
    assert scores[4] == pytest.approx(DECAY * 1.0 / np.sqrt(3), abs=1e-8)
    assert scores[5] == 0


def test_item_knn_falls_back_on_popularity(write_dataset):
    data = write_dataset(["a", "b", "c"], [("t", 1, 0), ("s", 1, 0), ("v", 2, 0)], [("u", [0], [1], [1.0], 1.0)])
    assert lists(recommend("item-kNN", data, list(data.rows("test")), 2)) == [[1, 2]]


def test_title_words_follow_the_recent_history(small):
    rows = list(small.rows("test"))
    found = lists(recommend("TF-IDF of titles", small, rows, 2))
    assert set(found[0]) == {1, 3}  # "red pen": red ink and blue pen share a word
    assert found[2][0] == 5  # "green desk": green chair
    assert lists(recommend("TF-IDF of titles", small, rows[1:2], 1)) == [[2]]  # red ink last: ink before pen


def test_title_words_agree_with_scikit_learns_formula(small):
    scores = title_words(Training.of(small))(list(small.rows("test"))[:1])[0]
    idf = np.log(7 / 3) + 1  # every word but desk and chair is in two of six titles
    assert scores[0] == pytest.approx(1.0)
    assert scores[1] == pytest.approx(0.5)
    rare = np.log(7 / 2) + 1
    green = title_words(Training.of(small))(list(small.rows("test"))[2:3])[0]
    assert green[5] == pytest.approx(idf**2 / (idf**2 + rare**2))


def test_the_unseen_pick_names_unseen_items_first_and_is_seeded(small):
    rows = list(small.rows("test"))
    found = lists(recommend("random unseen", small, rows, 3))
    assert all(items[0] == 5 for items in found)
    assert found == lists(recommend("random unseen", small, rows, 3))
    assert found[:2] == lists(recommend("random unseen", small, rows[:2], 3))
    assert any(found != lists(recommend("random unseen", small, rows, 3, seed=seed)) for seed in (1, 2, 3))


def test_candidates_limit_the_lists(write_dataset):
    rows = [("u", [0], [1], [1.0], 1.0, [1, 2])]
    data = write_dataset(["a", "b", "c", "d"], [("t", 3, 0), ("t", 2, 1)], rows)
    for name in BASELINES:
        assert sorted(lists(recommend(name, data, list(data.rows("test")), 4))[0]) == [1, 2], name


def test_lists_end_where_items_run_out(small):
    rows = list(small.rows("test"))
    found = recommend("popularity", small, rows, 8)
    assert found.lengths.tolist() == [5, 4, 5, 5]
    assert found.items[1, 4:].tolist() == [INVALID] * 4


def test_batches_change_nothing(small, monkeypatch):
    rows = list(small.rows("test"))
    whole = {name: recommend(name, small, rows, 3).items for name in BASELINES}
    monkeypatch.setattr("recalign.recommenders.simple.BATCH_CELLS", 1)
    for name, items in whole.items():
        assert np.array_equal(items, recommend(name, small, rows, 3).items), name


def test_ties_go_to_the_lower_index(small):
    rows = list(small.rows("test"))[:1]
    assert top_items(np.array([[1.0, 2.0, 1.0, 1.0, 2.0, 0.0]]), rows, 3, exclude_history=False).items.tolist() == [
        [1, 4, 0]
    ]


def test_an_unknown_baseline_is_refused(small):
    with pytest.raises(UserError, match="Did you mean 'popularity'"):
        recommend("populrity", small, [], 3)
