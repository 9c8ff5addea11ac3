"""Small prepared datasets, and ways to ask recommenders."""

import pytest

from recalign.plugins.registry import create
from recalign.recommenders.recommend import fit, recommend
from tests.evaluation.conftest import small, write_dataset

__all__ = ["answer", "fitted", "small", "write_dataset"]


@pytest.fixture
def fitted():
    """A recommender by its name, fitted on a dataset."""

    def make(name, dataset, seed=0, **params):
        recommender = create("recommender", name, params)
        fit(recommender, dataset, seed)
        return recommender

    return make


@pytest.fixture
def answer(fitted):
    """The lists of a recommender for some test rows."""

    def make(name, dataset, size, rows=slice(None), exclude_history=None, seed=0):
        exclude = dataset.excludes_history() if exclude_history is None else exclude_history
        some = dataset.rows("test")[rows]
        items = len(dataset.catalogue)
        found = recommend(fitted(name, dataset, seed), some, size, items, exclude_history=exclude)
        return [list(each[:length]) for each, length in zip(found.items.tolist(), found.lengths, strict=True)]

    return make
