"""`recalign explain`: history, list, targets and rationales of one user, in the terminal and as JSON."""

import json

import numpy as np
import pytest

from recalign import cli
from recalign.api import Predictions
from recalign.commands.baseline import baseline
from recalign.commands.explain import explain
from recalign.data.dataset import PreparedDataset
from recalign.preparation.pipeline import prepare_dataset
from recalign.runs.predictions import write_predictions
from recalign.tasks.rank import ranked
from tests.fake_dataset import write_dataset


@pytest.fixture(scope="module")
def ranking(tmp_path_factory):
    """A dataset of the rank task, and predictions with scores and rationales that say what they are about."""
    folder = tmp_path_factory.mktemp("explain")
    params = {"users": 30, "events": 12, "items": 40, "genres": 4}
    prepare_dataset("synthetic", None, folder / "data", params=params, options={"task": "rank", "candidates": 5})
    dataset = PreparedDataset(folder / "data")
    rows = dataset.rows("test")[:]
    items = [row.candidates for row in rows]
    texts = [f"[About] item {item}." for each in items for item in each]
    scores = np.concatenate(items).astype(float)  # the higher the index, the better
    write_predictions(folder / "run", ranked(rows, items, scores, seed=0, rationales=texts), rows, dataset.catalogue)
    return dataset, folder / "run", rows


def test_the_row_of_the_user_with_its_ranked_candidates_and_their_rationales(ranking):
    dataset, run, rows = ranking
    row = rows[1]
    found = explain(run, user=row.user_id, data=dataset.path)
    (shown,) = found["rows"]
    assert (shown["user_id"], shown["row"], found["split"]) == (row.user_id, row.index, "test")
    assert [event["item"] for event in shown["history"]] == row.history.tolist()
    assert [event["rating"] for event in shown["history"]] == row.ratings.tolist()
    assert all(event["when"].startswith("20") for event in shown["history"])
    order = sorted(row.candidates.tolist(), reverse=True)
    assert [(each["rank"], each["item"], each["score"]) for each in shown["list"]] == [
        (rank, item, float(item)) for rank, item in enumerate(order, 1)
    ]
    assert [each["rationale"] for each in shown["list"]] == [f"[About] item {item}." for item in order]
    (target,) = shown["targets"]
    assert target["title"] == dataset.catalogue.titles[row.targets[0]]
    assert target["rank"] == order.index(row.targets[0]) + 1
    assert [each["item"] for each in shown["list"] if each["target"]] == row.targets.tolist()


def test_the_terminal_shows_as_many_as_asked_for_and_the_target_always(ranking, capsys):
    dataset, run, rows = ranking
    row = next(row for row in rows if row.targets[0] == min(row.candidates))  # ranked last
    explain(run, user=row.user_id, data=dataset.path, size=1)
    shown = capsys.readouterr().out
    order = sorted(row.candidates.tolist(), reverse=True)
    assert f"[About] item {order[0]}." in shown
    assert f"[About] item {order[-1]}." in shown
    assert f"5. {dataset.catalogue.titles[order[-1]]} target" in shown
    assert not any(f"[About] item {item}." in shown for item in order[1:-1])


def test_json_is_one_object_with_everything(ranking, capsys):
    dataset, run, rows = ranking
    with pytest.raises(SystemExit):
        cli.main(["explain", str(run), "--user", rows[0].user_id, "--data", str(dataset.path), "--size", "1", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert len(found["rows"][0]["list"]) == 5


def test_lists_of_other_tasks_show_hits_and_what_is_missing(tmp_path, capsys):
    dataset = write_dataset(tmp_path / "data")
    rows = dataset.rows("test")[:2]
    items = np.array([[rows[0].targets[0], rows[0].history[0], -1], [0, 0, 0]])
    predictions = Predictions(items, np.array([[3.0, 2.0, 1.0]] * 2), np.array([3, 0]))
    write_predictions(tmp_path / "run", predictions, rows, dataset.catalogue)
    (shown,) = explain(tmp_path / "run", user=rows[0].user_id, data=dataset.path)["rows"]
    assert [each["item"] for each in shown["list"]] == items[0].tolist()
    liked = rows[0].gains[0] > 0
    assert [each["target"] for each in shown["list"]] == [liked, False, False]
    assert [each["in_history"] for each in shown["list"]] == [False, True, False]
    assert [each["rank"] for each in shown["targets"]] == [1, None, None, None]
    assert all(each["rationale"] is None for each in shown["list"])
    (empty,) = explain(tmp_path / "run", user=rows[1].user_id, data=dataset.path)["rows"]
    assert empty["list"] == []
    told = " ".join(capsys.readouterr().out.split())
    assert "(no item)" in told
    assert "not in the list: " in told


def test_baselines_are_explained_without_naming_their_dataset(ranking, tmp_path, call):
    dataset, _, rows = ranking
    baseline("popularity", data=dataset.path, out=tmp_path / "baseline")
    shown = explain(tmp_path / "baseline")["rows"][0]
    assert shown["user_id"] == rows[0].user_id
    assert {each["item"] for each in shown["list"]} <= set(rows[0].candidates.tolist())


def test_an_unknown_user_is_told_with_similar_ones(ranking, call):
    dataset, run, rows = ranking
    code, told = call("explain", run, "--user", rows[0].user_id + "9", "--data", dataset.path)
    assert code == 2
    assert f"answers no row of a user '{rows[0].user_id}9'" in told
    assert f"'{rows[0].user_id}'" in told


def test_rationales_that_do_not_match_the_lists_are_refused(ranking, tmp_path, call):
    import polars as pl

    dataset, run, rows = ranking
    frame = pl.read_parquet(run / "predictions.parquet")
    (tmp_path / "run").mkdir()
    frame.with_columns(rationales=pl.col("rationales").list.head(2)).write_parquet(
        tmp_path / "run" / "predictions.parquet"
    )
    code, told = call("explain", tmp_path / "run", "--user", rows[0].user_id, "--data", dataset.path)
    assert code == 2
    assert "has 2 rationales for 5 items" in told
