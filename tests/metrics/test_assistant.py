"""assistant: the scores of a baseline's run, standardised over the catalogue."""

import numpy as np
import pytest

from recalign.api import ListBatch, UserError
from recalign.commands.baseline import baseline
from recalign.data.dataset import PreparedDataset
from recalign.metrics.assistant import standardise
from recalign.plugins.registry import create
from recalign.preparation.pipeline import prepare_dataset
from recalign.recommenders.recommend import fit


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("assistant")
    params = {"users": 60, "events": 16, "items": 40, "genres": 4}
    prepare_dataset("synthetic", None, folder / "data", params=params, options={"task": "next"})
    baseline("item-knn", data=folder / "data", out=folder / "knn", quiet=True)
    return PreparedDataset(folder / "data"), folder / "knn"


def bound(dataset, run):
    reward = create("metric", "assistant", {"run": str(run)})
    reward.bind(dataset.catalogue)
    return reward


def test_values_are_the_recommenders_standardised_scores_on_any_split(world):
    dataset, run = world
    knn = create("recommender", "item-knn")
    fit(knn, dataset, 0)
    for split in ("train", "valid"):
        rows = [dataset.rows(split)[0], dataset.rows(split)[1]]
        scores = knn.scores(rows)
        scores = (scores - scores.mean(1, keepdims=True)) / scores.std(1, keepdims=True)
        items = np.array([[3], [5], [3], [-1]])
        lists = ListBatch(items, np.ones(4, dtype=int), [rows[0], rows[0], rows[1], rows[1]], np.arange(4))
        expected = [scores[0, 3], scores[0, 5], scores[1, 3], scores[1].min()]
        assert bound(dataset, run).score(lists) == pytest.approx(expected)


def test_a_list_is_the_mean_over_its_positions(world):
    dataset, run = world
    row = dataset.rows("train")[0]
    singles = ListBatch(np.array([[3], [5]]), np.ones(2, dtype=int), [row] * 2, np.arange(2))
    pair = ListBatch(np.array([[3, 5]]), np.array([2]), [row], np.arange(1))
    reward = bound(dataset, run)
    assert reward.score(pair) == pytest.approx(reward.score(singles).mean())


def test_a_run_must_be_named_and_must_be_a_baselines(world, tmp_path):
    dataset, _ = world
    with pytest.raises(UserError, match="needs the run") as error:
        create("metric", "assistant").bind(dataset.catalogue)
    assert "recalign baseline" in error.value.hint
    with pytest.raises(UserError, match="no run folder"):
        bound(dataset, tmp_path / "nothing")


@pytest.mark.parametrize("scale", [1e-300, 1e-12, 1.0, 1e6, 1e300])
def test_scores_of_any_scale_are_standardised_alike_and_equal_ones_are_0(scale):
    found = standardise(np.array([[1.0, 2.0, 6.0], [0.1, 0.1, 0.1]]) * scale)
    deviation = np.sqrt(14 / 3)  # mean 3, squares 4 + 1 + 9
    assert found[0] == pytest.approx([-2 / deviation, -1 / deviation, 3 / deviation])
    assert found[1].tolist() == [0.0, 0.0, 0.0]
