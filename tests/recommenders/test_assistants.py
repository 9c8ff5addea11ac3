"""Assistants: baselines' runs, loaded again; other items, other interactions and damage are refused."""

import shutil

import numpy as np
import pytest

from recalign.commands.baseline import baseline
from recalign.errors import UserError
from recalign.evaluation.baselines import RECOMMENDERS
from recalign.recommenders.assistants import load_assistant
from recalign.recommenders.recommend import top_items
from recalign.runs.predictions import read_predictions
from recalign.workspace import RunFolder
from tests.evaluation.prepared import write_dataset, write_small

TRAINED = {"sasrec": ["epochs=2", "hidden=16"], "bert4rec": ["epochs=2", "hidden=16"]}
NAMES = [*RECOMMENDERS, *TRAINED]


@pytest.fixture
def data(tmp_path):
    return write_small(tmp_path / "data", task="next")


@pytest.mark.parametrize("name", NAMES)
def test_an_assistant_scores_as_the_baseline_did(name, data, tmp_path):
    baseline(name, data=data.path, param=TRAINED.get(name), size=4, out=tmp_path / "run", seed=3)
    predictions, rows = read_predictions(tmp_path / "run", data, "test", 4)
    scores = load_assistant(tmp_path / "run", data.catalogue).scores(rows)
    assert scores.shape == (4, 6)
    found = top_items(scores, rows, 4, exclude_history=True)
    assert np.array_equal(found.items, predictions.items)
    np.testing.assert_allclose(found.scores, predictions.scores, atol=1e-6)


def test_another_catalogue_and_other_training_interactions_are_refused(data, tmp_path):
    baseline("sasrec", data=data.path, param=TRAINED["sasrec"], out=tmp_path / "run")
    titles = list(data.catalogue.titles)
    rows = [("u0", [0], [1], [1.0], 9.0)]
    renamed = write_dataset(tmp_path / "renamed", [*titles[:5], "another"], [("u", 0, 1)], rows)
    with pytest.raises(UserError, match="was made for another catalogue") as error:
        load_assistant(tmp_path / "run", renamed.catalogue)
    assert "recalign baseline" in error.value.hint
    fold = write_dataset(tmp_path / "fold", titles, [("u", 0, 1), ("u", 5, 2)], rows)
    with pytest.raises(UserError, match="has seen other training interactions"):
        load_assistant(tmp_path / "run", fold.catalogue)


def test_folders_that_hold_no_finished_baseline_are_refused(data, tmp_path):
    with pytest.raises(UserError, match="nowhere is no run folder"):
        load_assistant(tmp_path / "nowhere", data.catalogue)
    RunFolder(tmp_path / "sft").begin("sft", {}, {})
    with pytest.raises(UserError, match="is a run of sft"):
        load_assistant(tmp_path / "sft", data.catalogue)
    RunFolder(tmp_path / "half").begin("baseline", {"recommender": "sasrec"}, {})
    with pytest.raises(UserError, match="is unfinished"):
        load_assistant(tmp_path / "half", data.catalogue)


def test_a_model_that_is_gone_is_refused(data, tmp_path):
    baseline("sasrec", data=data.path, param=TRAINED["sasrec"], out=tmp_path / "run")
    (tmp_path / "run" / "recommender" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no readable recommender"):
        load_assistant(tmp_path / "run", data.catalogue)


@pytest.mark.parametrize("name", NAMES)
def test_an_assistant_needs_no_dataset(name, data, tmp_path):
    baseline(name, data=data.path, param=TRAINED.get(name), out=tmp_path / "run")
    catalogue, rows = data.catalogue, data.rows("valid")[:]
    shutil.rmtree(data.path)
    assert load_assistant(tmp_path / "run", catalogue).scores(rows).shape == (4, 6)


def test_damaged_arrays_are_refused(data, tmp_path):
    baseline("item-knn", data=data.path, out=tmp_path / "run")
    (tmp_path / "run" / "recommender" / "arrays.npz").write_bytes(b"half of it")
    with pytest.raises(UserError, match="arrays.npz is not readable"):
        load_assistant(tmp_path / "run", data.catalogue)
