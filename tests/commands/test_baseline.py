"""`recalign baseline`: predictions in decode's format, SASRec where its library is installed, errors."""

import importlib.util

import numpy as np
import pytest

from recalign.commands.baseline import SIMPLE, baseline
from recalign.data.dataset import PreparedDataset
from recalign.data.prepare import prepare_dataset
from recalign.errors import UserError
from recalign.evaluation.baselines import recommend
from recalign.evaluation.predictions import read_predictions

REPLAY = importlib.util.find_spec("replay") is not None


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    out = tmp_path_factory.mktemp("baseline") / "data"
    params = {"users": 60, "events": 16, "items": 40, "genres": 4}
    prepare_dataset("synthetic", None, out, params=params, options={"task": "next"})
    return PreparedDataset(out)


@pytest.mark.parametrize("name", SIMPLE)
def test_predictions_are_those_of_the_baseline_in_decodes_format(dataset, tmp_path, name):
    result = baseline(name, data=dataset.path, size=7, out=tmp_path / "run")
    predictions, rows = read_predictions(tmp_path / "run", dataset, "test", 7)
    expected = recommend(SIMPLE[name], dataset, rows, 7)
    assert np.array_equal(predictions.items, expected.items)
    assert result["rows"] == len(rows) == len(dataset.rows("test"))


def test_a_finished_baseline_is_not_computed_again_and_another_one_is_refused(dataset, tmp_path):
    baseline("popularity", data=dataset.path, out=tmp_path / "run")
    before = (tmp_path / "run" / "predictions.parquet").stat().st_mtime_ns
    baseline("popularity", data=dataset.path, out=tmp_path / "run")
    assert (tmp_path / "run" / "predictions.parquet").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="holds another run"):
        baseline("item-knn", data=dataset.path, out=tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "param", "message"),
    [
        ("popular", [], "no baseline 'popular'"),
        ("popularity", ["k=3"], "baseline 'popularity' has no parameter 'k'"),
        ("sasrec", ["hiden=3"], "baseline 'sasrec' has no parameter 'hiden'"),
    ],
)
def test_unknown_names_and_parameters_are_refused(dataset, tmp_path, name, param, message):
    with pytest.raises(UserError, match=message):
        baseline(name, data=dataset.path, param=param, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(REPLAY, reason="the library is installed")
def test_a_missing_library_is_named_with_the_extra_that_brings_it(dataset, tmp_path):
    with pytest.raises(UserError, match="needs the library replay-rec") as error:
        baseline("sasrec", data=dataset.path, out=tmp_path / "run")
    assert "recalign[baselines]" in error.value.hint


@pytest.mark.skipif(not REPLAY, reason="the optional extra `baselines` has replay-rec")
def test_sasrec_recommends_and_does_so_again_alike(dataset, tmp_path):
    found = []
    for run in ("a", "b"):
        baseline("sasrec", data=dataset.path, param=["epochs=2", "hidden=16"], out=tmp_path / run, size=5)
        found.append(read_predictions(tmp_path / run, dataset, "test", 5)[0].items)
    assert np.array_equal(*found)
    assert (found[0] >= 0).all()
    assert len(np.unique(found[0])) > 5
