"""The rank task from the command line: prepare, train a judge, decode, measure against chance."""

import json

import polars as pl
import pytest

from recalign.decoding.serving import load_service

MODEL = "builtin:tiny,hidden=32,layers=1"


@pytest.fixture
def data(call, tmp_path):
    options = ["-p", "users=60", "-p", "items=60", "-p", "events=8", "--candidates", "6", "--seed", "1"]
    assert call("prepare", "synthetic", *options, "--task", "rank", "--out", tmp_path / "data", "--quiet")[0] == 0
    return tmp_path / "data"


@pytest.mark.parametrize("over", ["vocabulary", "words"])
def test_a_judge_is_trained_decoded_and_measured(call, data, tmp_path, over):
    judge = ["--objective", "judge", "-p", f"over={over}", "-p", "positive=yes", "-p", "negative=no"]
    training = ["--model", MODEL, "--max-steps", "2", "--batch-size", "8", "--quiet"]
    assert call("sft", "--data", data, *judge, *training, "--out", tmp_path / "sft") == (0, "")
    settings = json.loads((tmp_path / "sft" / "model" / "recalign.json").read_text())
    assert settings["task"] == "rank" and settings["answering"]["form"]["words"] == ["yes", "no"]
    assert call("decode", "--data", data, "--model", tmp_path / "sft", "--quiet", "--out", tmp_path / "lists")[0] == 0
    frame = pl.read_parquet(tmp_path / "lists" / "predictions.parquet")
    assert frame["items"].list.len().unique().to_list() == [6] and "rationales" not in frame.columns
    measured = ["--metrics", "ndcg@1,ndcg@5,auc", "--quiet"]
    assert call("eval", tmp_path / "lists", *measured)[0] == 0
    metrics = json.loads((tmp_path / "lists" / "eval" / "metrics.json").read_text())
    chance = metrics["baselines"]["chance"]["metrics"]
    assert chance["ndcg@1"]["mean"] == pytest.approx(1 / 6) and chance["auc"]["mean"] == pytest.approx(0.5)
    assert {"item-kNN", "popularity"} < {*metrics["baselines"]}
    assert 0 <= metrics["metrics"]["auc"]["mean"] <= 1


def test_a_model_with_a_trained_head_is_decoded_by_it_on_its_own_dataset_unless_told_otherwise(call, data, tmp_path):
    training = ["--model", MODEL, "--max-steps", "1", "--prompts-per-step", "2", "--valid-rows", "4", "--no-report"]
    short = ["-p", "max_tokens=4", "--quiet"]
    aligned = tmp_path / "aligned"
    assert call("align", "--data", data, "--objective", "list-mle", *training, *short, "--out", aligned)[0] == 0
    few = ["--model", aligned, "--limit", "4", "--quiet"]
    assert call("decode", *few, "--out", tmp_path / "usual")[0] == 0
    assert call("decode", *few, "--decoder", "judge", "--out", tmp_path / "judged")[0] == 0
    records = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("usual", "judged")]
    assert [each["options"]["decoder"] for each in records] == ["head", "judge"]
    assert records[0]["options"]["data"] == str(data)
    assert [each["lineage"]["label"].rpartition(" + ")[2] for each in records] == ["aligned", "judge"]
    service = load_service(aligned)
    assert service.decoder.name == "head"
    items = [service.dataset.catalogue.titles[place] for place in range(8)]
    assert len(service.recommend(items[:2], candidates=items[2:])["recommended"]) == 6


def test_titles_written_in_order_are_a_permutation(call, data, tmp_path):
    assert call("decode", "--data", data, "--model", MODEL, "--decoder", "list", "--limit", 4,
                "--out", tmp_path / "lists", "--quiet")[0] == 0  # fmt: skip
    frame = pl.read_parquet(tmp_path / "lists" / "predictions.parquet")
    assert all(len({*items}) == 6 for items in frame["items"].to_list())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--decoder", "head"], "The model has no trained ranking head"),
        (
            ["--decoder", "beam"],
            "The decoder 'beam' serves the task next, not 'rank'. Use another decoder, such as judge",
        ),
        (
            ["--decoder", "judge", "-p", "positive=zig", "-p", "negative=zag"],
            "cannot write the answers 'zig' and 'zag'",
        ),
    ],
)
def test_what_does_not_fit_is_told(call, data, tmp_path, arguments, said):
    code, told = call("decode", "--data", data, "--model", MODEL, *arguments, "--out", tmp_path / "lists")
    assert code == 2 and said in told


def test_objectives_of_titles_do_not_fit(call, data, tmp_path):
    code, told = call("sft", "--data", data, "--model", MODEL, "--objective", "msl", "--out", tmp_path / "sft")
    assert code == 2 and "The objective 'msl' is for the task list or next" in told
