"""TF-IDF and co-occurrence, against hand-computed values."""

import math

import numpy as np
import pytest

from recalign.data.vectors import cooccurrence, tfidf


def test_tfidf_weighs_rare_words_more_and_rows_have_length_one():
    matrix = tfidf(["red ship", "red red", ""]).toarray()
    common, rare = math.log(4 / 3) + 1, math.log(4 / 2) + 1
    assert matrix[0] == pytest.approx(np.array([common, rare]) / math.hypot(common, rare))
    assert matrix[1] == pytest.approx([1.0, 0.0])
    assert matrix[2].tolist() == [0.0, 0.0]


def test_cooccurrence_counts_pairs_of_one_user_by_distance():
    matrix = cooccurrence(np.array([0, 0, 0, 1]), np.array([0, 1, 2, 0]), 4).toarray()
    assert matrix[0, 1] == pytest.approx(1 / math.sqrt(2))  # item 0 has two interactions
    assert matrix[0, 2] == pytest.approx(0.5 / math.sqrt(2))
    assert matrix[1, 2] == pytest.approx(1.0)
    assert not matrix[3].any()
    assert np.array_equal(matrix, matrix.T)


def test_no_interactions_give_an_empty_matrix():
    assert cooccurrence(np.empty(0, dtype=int), np.empty(0, dtype=int), 3).nnz == 0
