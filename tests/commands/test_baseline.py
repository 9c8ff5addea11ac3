"""`recalign baseline`: predictions in decode's format, assistants of d3, errors."""

import json
from pathlib import Path

import numpy as np
import pytest

from recalign.commands.baseline import baseline
from recalign.commands.compare import compare
from recalign.commands.decode import decode
from recalign.commands.eval import eval as evaluate
from recalign.data.dataset import PreparedDataset
from recalign.errors import UserError
from recalign.evaluation.baselines import RECOMMENDERS
from recalign.plugins.registry import create
from recalign.preparation.pipeline import prepare_dataset
from recalign.recommenders.bert4rec import Bert4RecParams
from recalign.recommenders.recommend import fit, recommend
from recalign.recommenders.sasrec import SasRecParams
from recalign.runs.predictions import read_predictions
from recalign.workspace import RunFolder

RECIPE = """
[[step]]
name = "data"
command = "prepare"
source = "synthetic"
params = { users = 60, events = 16, items = 40, genres = 4 }
task = "next"

[[step]]
command = "baseline"
data = "@data"
matrix.recommender = ["item-knn", "popularity"]

[[step]]
command = "eval"
predictions = "@baseline"
baselines = false

[[step]]
command = "compare"
runs = "@eval"
"""
MODEL = "builtin:tiny,hidden=32,layers=1"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    out = tmp_path_factory.mktemp("baseline") / "data"
    params = {"users": 60, "events": 16, "items": 40, "genres": 4}
    prepare_dataset("synthetic", None, out, params=params, options={"task": "next"})
    return PreparedDataset(out)


@pytest.mark.parametrize("name", RECOMMENDERS)
def test_predictions_are_those_of_the_baseline_in_decodes_format(dataset, tmp_path, name):
    result = baseline(name, data=dataset.path, size=7, out=tmp_path / "run")
    predictions, rows = read_predictions(tmp_path / "run", dataset, "test", 7)
    recommender = create("recommender", name)
    fit(recommender, dataset, 0)
    exclude = dataset.excludes_history()
    expected = recommend(recommender, rows, 7, len(dataset.catalogue), exclude_history=exclude)
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
        ("popular", [], "no recommender named 'popular'"),
        ("popularity", ["k=3"], "recommender 'popularity' has no parameter 'k'"),
        ("sasrec", ["hiden=3"], "recommender 'sasrec' has no parameter 'hiden'"),
        ("sasrec", ["mask=0.3"], "recommender 'sasrec' has no parameter 'mask'"),
        ("bert4rec", ["mask=1"], "recommender 'bert4rec': mask = '1' is refused"),
        ("sasrec", ["heads=3"], "heads = 3 does not divide hidden = 64"),
    ],
)
def test_unknown_names_and_parameters_are_refused(dataset, tmp_path, name, param, message):
    with pytest.raises(UserError, match=message):
        baseline(name, data=dataset.path, param=param, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["sasrec", "bert4rec"])
def test_trained_baselines_recommend_and_do_so_again_alike(dataset, tmp_path, name):
    found = []
    for run in ("a", "b"):
        baseline(name, data=dataset.path, param=["epochs=2", "hidden=16"], out=tmp_path / run, size=5)
        found.append(read_predictions(tmp_path / run, dataset, "test", 5)[0].items)
    results = RunFolder(tmp_path / "a").record["results"]
    assert results["fit"]["epochs"] == 2
    evaluate(tmp_path / "a", metrics="ndcg@5", baselines=False)
    cost = json.loads((tmp_path / "a" / "eval" / "metrics.json").read_text())["cost"]
    assert cost["training_seconds"] == results["seconds"] > 0
    assert cost["decode_seconds"] == results["cost"]["seconds"] > 0
    assert np.array_equal(*found)
    assert (found[0] >= 0).all()
    assert len(np.unique(found[0])) > 5
    assert sorted(path.name for path in (tmp_path / "a" / "recommender").iterdir()) == ["model.safetensors"]


def test_compare_takes_a_baselines_folder_like_a_models(dataset, tmp_path):
    decode(data=dataset.path, model=MODEL, out=tmp_path / "tiny", size=5)
    for name in ("item-knn", "popularity"):
        baseline(name, data=dataset.path, size=5, out=tmp_path / name)
    for name in ("tiny", "item-knn", "popularity"):
        evaluate(tmp_path / name, metrics="ndcg@5,hit@5", baselines=False)
    systems = compare([tmp_path / "tiny", tmp_path / "item-knn", tmp_path / "popularity"], out=tmp_path / "c")[
        "systems"
    ]
    assert [system["name"] for system in systems] == [MODEL, "item-knn", "popularity"]
    measured = evaluate(tmp_path / "tiny", metrics="ndcg@5,hit@5", out=tmp_path / "beside")["baselines"]
    for system, same in zip(systems[1:], ("item-kNN", "popularity"), strict=True):
        assert system["metrics"]["ndcg@5"]["mean"] == measured[same]["metrics"]["ndcg@5"]["mean"]
        assert not system["baseline"]  # it is tested like a model


def test_seeds_of_a_baseline_form_one_row(dataset, tmp_path):
    for seed in (0, 1):
        baseline("random-unseen", data=dataset.path, size=5, seed=seed, out=tmp_path / f"seed={seed}")
        evaluate(tmp_path / f"seed={seed}", metrics="hit@5", baselines=False)
    (system,) = compare([tmp_path / "seed=0", tmp_path / "seed=1"], out=tmp_path / "c")["systems"]
    assert system["name"] == "random-unseen"
    assert [run["seed"] for run in system["runs"]] == [0, 1]


def test_a_recipe_holds_a_model_against_baselines(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.toml").write_text(RECIPE, "utf-8")
    code, told = call("run", "x.toml")
    assert code == 0, told
    table = json.loads((tmp_path / "runs/x/compare/table.json").read_text())
    assert [system["name"] for system in table["systems"]] == ["item-knn", "popularity"]


def decoded(dataset, out, *params, split="test"):
    found = decode(data=dataset.path, model=MODEL, decoder="d3", param=[*params], split=split, size=5, out=out)
    return found, read_predictions(out, dataset, split, 5)[0].items


def test_a_baseline_assists_decoding_of_any_split(dataset, tmp_path):
    run = tmp_path / "sasrec"
    baseline("sasrec", data=dataset.path, param=["epochs=2", "hidden=16"], out=run, size=5)
    result, alone = decoded(dataset, tmp_path / "alone", f"assistant={run}", "alpha=0", "width=40")
    assert result["decoder"] == "d3"
    assert np.array_equal(alone, read_predictions(run, dataset, "test", 5)[0].items)
    _, without = decoded(dataset, tmp_path / "without")
    assert not np.array_equal(without, alone)
    assert decoded(dataset, tmp_path / "valid", f"assistant={run}", split="valid")[1].shape[1] == 5


def test_decoding_again_after_the_assistant_changed_is_another_run(dataset, tmp_path):
    run = tmp_path / "sasrec"
    baseline("sasrec", data=dataset.path, param=["epochs=1", "hidden=16"], out=run)
    decoded(dataset, tmp_path / "out", f"assistant={run}")
    decoded(dataset, tmp_path / "out", f"assistant={run}")  # up to date
    baseline("sasrec", data=dataset.path, param=["epochs=1", "hidden=8"], out=run, overwrite=True)
    with pytest.raises(UserError, match="holds another run"):
        decoded(dataset, tmp_path / "out", f"assistant={run}")


def test_an_assistant_that_does_not_fit_leaves_no_folder_behind(dataset, tmp_path):
    params = {"users": 60, "events": 16, "items": 30, "genres": 4}
    prepare_dataset("synthetic", None, tmp_path / "other", params=params, options={"task": "next"})
    baseline("item-knn", data=tmp_path / "other", out=tmp_path / "run")
    with pytest.raises(UserError, match="made for another catalogue"):
        decoded(dataset, tmp_path / "out", f"assistant={tmp_path / 'run'}")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="is no run folder"):
        decoded(dataset, tmp_path / "out", f"assistant={tmp_path / 'nowhere'}")


def test_the_decoders_of_titles_refuse_the_list_task(tmp_path):
    params = {"users": 60, "events": 24, "items": 40, "genres": 4}
    prepare_dataset("synthetic", None, tmp_path / "list", params=params, options={"task": "list", "list_length": 3})
    for name in ("d3", "igd"):
        with pytest.raises(UserError, match=f"'{name}' serves the task next, not 'list'"):
            decode(data=tmp_path / "list", model=MODEL, decoder=name, out=tmp_path / "out")


def test_the_documented_parameters_are_those_that_there_are():
    page = (Path(__file__).parents[2] / "docs" / "baselines.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| `")]
    documented = {row[0].strip("`"): row[1:] for row in rows if len(row) == 4}
    fields = {"sasrec": SasRecParams.model_fields, "bert4rec": Bert4RecParams.model_fields}
    assert list(documented) == list(fields["bert4rec"])
    for name, (*defaults, description) in documented.items():
        found = [fields[kind][name] if name in fields[kind] else None for kind in ("sasrec", "bert4rec")]
        assert defaults == ["" if field is None else str(field.default) for field in found]
        assert description == found[1].description


def test_popularity_sees_no_order_and_the_knn_does(dataset, tmp_path):
    """Popularity ranks by training interactions alone: whatever is changed of a history, its lists stay."""
    found = {}
    for name in ("popularity", "item-knn"):
        out = tmp_path / name
        baseline(name, data=dataset.path, vary=["order=3", "length=1,3"], out=out)
        results = evaluate(out, metrics="ndcg@5", baselines=False)
        found[name] = {each["variation"]: each for each in results["analyses"]["variations"]}
    told = found["popularity"]
    assert {each["moved"] for name in told for each in told[name]["values"]} == {0.0}
    assert (told["order"]["spread"]["deviation"], told["order"]["spread"]["row_deviation"]) == (0.0, 0.0)
    assert told["length"]["rows"] == results["metrics"]["ndcg@5"]["n"] == 3  # rows with a relevant target
    assert all(each["moved"] > 0 for each in found["item-knn"]["order"]["values"])


def test_sasrecs_spread_over_orders_stands_beside_a_rank_models(tmp_path, capsys):
    """The same rows in the same permutations: SASRec minds the order of a history, and the table has both."""
    params = {"users": 60, "events": 16, "items": 40, "genres": 4}
    options = {"task": "rank", "candidates": 6, "identifier": "atomic"}
    prepare_dataset("synthetic", None, tmp_path / "data", params=params, options=options)
    asked = {"data": tmp_path / "data", "vary": ["order=3"], "vary_rows": 4}
    baseline("sasrec", param=["epochs=2", "hidden=16"], out=tmp_path / "sasrec", **asked)
    decode(model=MODEL, out=tmp_path / "judge", **asked)
    for run in ("sasrec", "judge"):
        evaluate(tmp_path / run, metrics="ndcg@5", baselines=False)
    capsys.readouterr()
    told = compare([tmp_path / "judge", tmp_path / "sasrec"], out=tmp_path / "compare")["analyses"]["variations"]
    found = {each["system"]: each for each in told if each["metric"] == "ndcg@5"}
    assert [each["variation"] for each in found.values()] == ["order", "order"]
    assert all(each["spread"]["row_deviation"] > 0 for each in found.values())
    first, second = ([each["rows"], len(each["values"])] for each in found.values())
    assert first == second == [4, 3]
    assert "Order of the history" in capsys.readouterr().out
