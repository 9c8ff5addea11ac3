"""item-vectors: text or a file, cut and scaled."""

import numpy as np
import pytest

from recalign.api import Catalogue, UserError
from recalign.plugins.registry import create

NAMES = ["red ship", "red robot", "blue robot", "blue ghost"]
CATALOGUE = Catalogue(["a", "b", "c", "d"], NAMES, [()] * 4, [""] * 4, np.ones(4, dtype=np.int64))


def write(path, width=3):
    vectors = np.random.default_rng(0).standard_normal((4, width))
    np.savez(path, item_id=np.array(["d", "c", "b", "a"]), embedding=vectors)
    return vectors[::-1]


def test_items_that_share_words_have_similar_vectors_of_mean_square_1():
    vectors = create("backbone", "item-vectors").vectors(CATALOGUE)
    assert (vectors**2).mean(axis=1) == pytest.approx(np.ones(4))
    similarity = vectors @ vectors.T / vectors.shape[1]
    assert similarity[0, 1] > 0.1 and similarity[1, 2] > 0.1
    assert similarity[0, 2] == pytest.approx(0) and similarity[0, 3] == pytest.approx(0)


def test_a_file_gives_the_vectors_of_the_items_by_id(tmp_path):
    wanted = write(tmp_path / "vectors.npz")
    backbone = create("backbone", "item-vectors", {"embeddings": str(tmp_path / "vectors.npz")})
    found = backbone.vectors(CATALOGUE)
    np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted, axis=1, keepdims=True) * 3**0.5)
    assert backbone.files == [tmp_path / "vectors.npz"]


def test_wide_vectors_are_cut(tmp_path):
    write(tmp_path / "vectors.npz", width=9)
    options = {"embeddings": str(tmp_path / "vectors.npz"), "dimensions": 2}
    assert create("backbone", "item-vectors", options).vectors(CATALOGUE).shape == (4, 2)


def test_an_item_without_words_has_the_vector_0():
    catalogue = Catalogue(["a", "b"], ["red ship", "!"], [()] * 2, [""] * 2, np.ones(2, dtype=np.int64))
    vectors = create("backbone", "item-vectors").vectors(catalogue)
    assert not vectors[1].any() and np.isfinite(vectors).all()


def test_a_missing_file_is_named(tmp_path):
    backbone = create("backbone", "item-vectors", {"embeddings": str(tmp_path / "none.npz")})
    with pytest.raises(UserError, match="none.npz does not exist"):
        backbone.vectors(CATALOGUE)
