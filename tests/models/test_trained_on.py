"""The dataset of a model is found again: where the run says, beside it, in the workspace, or not at all."""

import json
import shutil

import pytest

from recalign.errors import UserError
from recalign.models.trained_on import dataset_of_model, noted
from tests.fake_dataset import write_dataset


@pytest.fixture
def run(tmp_path):
    """A run that looks trained, in a workspace of its own, and its dataset elsewhere."""
    dataset = write_dataset(tmp_path / "elsewhere")
    model = tmp_path / "work" / "sft" / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    settings = {"base_model": "builtin:tiny", "catalogue": "c", "identifier": "title", "titles": "t"}
    (model / "recalign.json").write_text(json.dumps({**settings, "dataset": dataset.hash}))
    record = {"command": "sft", "options": {}, "inputs": {}, "status": "done", "results": {}, **noted(dataset, 3)}
    (model.parent / "run.json").write_text(json.dumps(record))
    return model.parent


def test_it_is_where_the_run_says(run, tmp_path):
    assert dataset_of_model(run).path == tmp_path / "elsewhere"
    assert dataset_of_model(run / "model").path == tmp_path / "elsewhere"
    assert json.loads((run / "run.json").read_text())["seed"] == 3


def test_a_workspace_that_moved_brings_its_dataset(run, tmp_path):
    (tmp_path / "elsewhere").rename(tmp_path / "work" / "data")
    moved = tmp_path / "moved"
    (tmp_path / "work").rename(moved)
    assert dataset_of_model(moved / "sft").path.resolve() == (moved / "data").resolve()


def test_another_dataset_is_never_taken_for_it(run, tmp_path, monkeypatch):
    monkeypatch.setenv("RECALIGN_HOME", str(tmp_path / "home"))
    shutil.rmtree(tmp_path / "elsewhere")
    write_dataset(tmp_path / "elsewhere", task="next")
    write_dataset(tmp_path / "work" / "data", identifier="atomic")
    with pytest.raises(UserError, match="elsewhere, which is gone or holds another one now") as stop:
        dataset_of_model(run)
    assert "--data" in stop.value.hint
    write_dataset(tmp_path / "home" / "data")
    assert dataset_of_model(run).path == tmp_path / "home" / "data"


def test_of_a_model_that_was_not_trained_here_it_is_the_workspaces(tmp_path, monkeypatch):
    monkeypatch.setenv("RECALIGN_HOME", str(tmp_path))
    with pytest.raises(UserError, match="is not a prepared dataset"):
        dataset_of_model("builtin:tiny")
    write_dataset(tmp_path / "data")
    assert dataset_of_model("builtin:tiny").path == tmp_path / "data"
