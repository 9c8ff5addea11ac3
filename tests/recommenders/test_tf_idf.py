import numpy as np
import pytest


def test_titles_follow_the_recent_history(small, answer):
    found = answer("tf-idf", small, 2)
    assert set(found[0]) == {1, 3}  # "red pen": red ink and blue pen share a word
    assert found[2][0] == 5  # "green desk": green chair
    assert answer("tf-idf", small, 1, slice(1, 2)) == [[2]]  # red ink last: ink before pen


def test_scores_agree_with_scikit_learns_formula(small, fitted):
    recommender = fitted("tf-idf", small)
    scores = recommender.scores(small.rows("test")[:1])[0]
    idf = np.log(7 / 3) + 1  # every word but desk and chair is in two of six titles
    assert scores[0] == pytest.approx(1.0)
    assert scores[1] == pytest.approx(0.5)
    rare = np.log(7 / 2) + 1
    green = recommender.scores(small.rows("test")[2:3])[0]
    assert green[5] == pytest.approx(idf**2 / (idf**2 + rare**2))
