"""similarity: cosines by hand, from embeddings and from words."""

import numpy as np
import pytest

from recalign.api import UserError
from recalign.plugins.registry import create


def similarity(catalogue, **params):
    reward = create("metric", "similarity", params)
    reward.bind(catalogue)
    return reward


@pytest.fixture
def embeddings(tmp_path):
    path = tmp_path / "vectors.npz"
    vectors = np.array([[2.0, 0], [1, 1], [0, 3], [-1, 0], [0, 0]])
    np.savez(path, item_id=np.array(["a", "b", "c", "d", "e"]), embedding=vectors)
    return str(path)


def test_cosines_with_the_target_by_hand(catalogue, make_row, make_lists, embeddings):
    lists = make_lists([[0], [1], [2], [3], [4], [-1]], make_row(targets=[0]))
    expected = [1, np.sqrt(0.5), 0, -1, 0, 0]
    assert similarity(catalogue, embeddings=embeddings).score(lists) == pytest.approx(expected)


def test_a_list_is_the_mean_over_its_positions_of_the_nearest_relevant_target(
    catalogue, make_row, make_lists, embeddings
):
    row = make_row(targets=[0, 2, 3], gains=[1.0, 1.0, 0.0])
    lists = make_lists([[1, 3], [1, 1], []], row)
    assert similarity(catalogue, embeddings=embeddings).score(lists) == pytest.approx([np.sqrt(0.5) / 2] * 2 + [0])


def test_words_of_title_and_genres_make_the_default_vectors(catalogue, make_row, make_lists):
    values = similarity(catalogue).score(make_lists([[0], [1], [3]], make_row(targets=[0])))
    assert values[0] == pytest.approx(1) and 0 < values[1] < 1 and values[2] == 0  # a shares genre x with b


def test_a_missing_file_is_named(catalogue):
    with pytest.raises(UserError, match=r"nowhere\.npz does not exist"):
        similarity(catalogue, embeddings="nowhere.npz")


def test_it_is_not_defined_without_a_relevant_target(catalogue, make_row):
    assert not similarity(catalogue).defined_for(make_row(targets=[1], gains=[0.0]))
