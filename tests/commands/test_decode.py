import json
from pathlib import Path

import polars as pl
import pytest

from recalign.commands.decode import decode
from recalign.commands.eval import eval as evaluate
from recalign.data.dataset import PreparedDataset
from recalign.decoding import batches as decoding
from recalign.errors import UserError
from recalign.models.policy import load_policy
from recalign.runs.predictions import find_predictions
from recalign.workspace import RunFolder
from tests.fake_dataset import TITLES, write_dataset

MODEL = "builtin:tiny,hidden=32,layers=1"


@pytest.fixture
def dataset(tmp_path) -> PreparedDataset:
    return write_dataset(tmp_path / "data")


def test_predictions_name_rows_items_and_titles(dataset, tmp_path):
    results = decode(data=dataset.path, model=MODEL, out=tmp_path / "out")
    frame = pl.read_parquet(tmp_path / "out" / "predictions.parquet")
    assert frame.columns == ["row", "user_id", "items", "scores", "item_ids", "titles"]
    assert frame["row"].to_list() == list(range(6))
    for record in frame.iter_rows(named=True):
        assert len(record["items"]) == len({*record["items"]}) == 3
        assert record["titles"] == [TITLES[item] for item in record["items"]]
        assert not {*record["items"]} & {*dataset.rows("test")[record["row"]].history.tolist()}
    recorded = json.loads((tmp_path / "out" / "run.json").read_text())
    assert recorded["status"] == "done" and recorded["results"]["decoder"] == "greedy"
    assert results["oracle"] is False and results["rows"] == 6
    cost = results["cost"]
    assert cost["prompts"] == 6 and cost["prompt_tokens"] > 6 and cost["completion_tokens"] > 18
    assert cost["forward_passes"] > 1 and cost["prompts_per_second"] > 0 and cost["peak_memory_mb"] > 10
    assert cost["tokens_per_second"] > cost["prompts_per_second"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["predictions.parquet", "run.json"]


def test_the_title_trie_is_kept_with_the_dataset_and_reported(dataset, tmp_path, capsys):
    first = decode(data=dataset.path, model=MODEL, out=tmp_path / "one")
    assert "title trie: 20 titles" in capsys.readouterr().err
    again = decode(data=dataset.path, model=MODEL, out=tmp_path / "two")
    assert (first["trie"]["read"], again["trie"]["read"]) == (False, True)
    assert json.loads((tmp_path / "two" / "run.json").read_text())["results"]["trie"] == again["trie"]
    lists = [pl.read_parquet(tmp_path / name / "predictions.parquet") for name in ("one", "two")]
    assert lists[0].equals(lists[1])


def test_a_dataset_that_cannot_be_written_is_decoded_all_the_same(dataset, tmp_path):
    (dataset.path / ".tries").write_text("in the way")
    assert decode(data=dataset.path, model=MODEL, out=tmp_path / "out")["trie"]["read"] is False


def test_the_next_task_is_searched_with_a_beam(tmp_path):
    data = write_dataset(tmp_path / "next", task="next")
    decode(data=data.path, model=MODEL, out=tmp_path / "out", split="valid", size=4, limit=2)
    frame = pl.read_parquet(tmp_path / "out" / "predictions.parquet")
    assert RunFolder(tmp_path / "out").record["results"]["decoder"] == "beam"
    assert frame["items"].list.len().to_list() == [4, 4]


def test_a_trained_model_is_found_in_the_workspace_and_answers_into_its_run(dataset, tmp_path):
    run = RunFolder(tmp_path / "runs" / "sft")
    run.begin("sft", {}, {})
    load_policy(MODEL, dataset).save(run.path / "model")
    with pytest.raises(UserError, match="holds no trained model"):
        decode(data=dataset.path)
    run.finish({})
    results = decode(data=dataset.path)
    assert results["out"] == str(run.path / "decode-greedy-test")


def test_an_interrupted_run_goes_on_with_the_same_results(dataset, tmp_path, monkeypatch):
    options = {"data": dataset.path, "model": MODEL, "decoder": "sample", "batch_size": 2}
    whole = decode(**options, out=tmp_path / "whole")
    real, calls = decoding.decode_rows, []

    def interrupted(*arguments, **keywords):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **keywords)

    monkeypatch.setattr(decoding, "decode_rows", interrupted)
    with pytest.raises(KeyboardInterrupt):
        decode(**options, out=tmp_path / "cut")
    assert RunFolder(tmp_path / "cut").record["status"] == "interrupted"
    assert not (tmp_path / "cut" / "predictions.parquet").exists()
    with pytest.raises(UserError, match="unfinished run"):
        decode(**options, out=tmp_path / "cut")
    results = decode(**options, out=tmp_path / "cut", resume=True)
    assert len(calls) == 4  # two batches were kept
    left, right = (pl.read_parquet(tmp_path / name / "predictions.parquet") for name in ("whole", "cut"))
    assert left.equals(right)
    counted = ("prompts", "prompt_tokens", "completion_tokens")
    assert [results["cost"][name] for name in counted] == [whole["cost"][name] for name in counted]


def test_a_finished_run_is_not_done_again(dataset, tmp_path, monkeypatch):
    first = decode(data=dataset.path, model=MODEL, out=tmp_path / "out")
    monkeypatch.setattr(decoding, "decode_rows", None)
    assert decode(data=dataset.path, model=MODEL, out=tmp_path / "out") == first
    with pytest.raises(UserError, match="another run.*seed: 0 -> 1"):
        decode(data=dataset.path, model=MODEL, out=tmp_path / "out", seed=1)


def test_oracles_are_recorded(dataset, tmp_path):
    chosen = {"decoder": "bon", "param": ["n=2", "reward=ndcg@3", "allow_oracle=true"]}
    assert decode(data=dataset.path, model=MODEL, out=tmp_path / "out", **chosen)["oracle"] is True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder": "bean"}, "no decoder named 'bean'"),
        ({"decoder": "beam"}, "serves the task next"),
        ({"decoder": "bon", "param": ["reward=ndcg@3"]}, "is an oracle"),
        ({"decoder": "sample", "param": ["temprature=1"]}, "no parameter 'temprature'"),
        ({"size": 4}, "have 3 items, not 4"),
        ({"model": "builtin:huge"}, "no built-in model"),
    ],
)
def test_bad_options_are_refused(dataset, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        decode(**{"data": dataset.path, "model": MODEL, "out": tmp_path / "out", **options})
    assert not (tmp_path / "out").exists()


def test_varied_rows_are_answered_beside_the_others_and_an_interrupted_run_goes_on(dataset, tmp_path, monkeypatch):
    options = {"data": dataset.path, "model": MODEL, "batch_size": 2, "vary": ["order=2", "length=1,5"], "vary_rows": 4}
    decode(**options, out=tmp_path / "whole")
    plain = decode(data=dataset.path, model=MODEL, out=tmp_path / "plain")
    lists = {file.parent.name: pl.read_parquet(file) for file in (tmp_path / "whole").rglob("predictions.parquet")}
    assert set(lists) == {"whole", "order-1", "order-2", "length-1", "length-5"}
    assert lists["whole"].equals(pl.read_parquet(tmp_path / "plain" / "predictions.parquet"))
    assert {frame.height for name, frame in lists.items() if name != "whole"} == {4}
    rows = lists["length-5"]["row"].to_list()  # a whole history is what was answered without variation
    assert lists["length-5"].equals(lists["whole"].filter(pl.col("row").is_in(rows)))
    assert not lists["length-1"].equals(lists["length-5"])
    consumed = {row: {*dataset.rows("test")[row].history.tolist()} for row in rows}
    for name in ("length-1", "order-1"):
        assert not any({*record["items"]} & consumed[record["row"]] for record in lists[name].iter_rows(named=True))
    assert plain["rows"] == 6

    real, calls = decoding.decode_rows, []

    def interrupted(*arguments, **keywords):
        if len(calls) == 5:
            raise KeyboardInterrupt
        calls.append(1)
        return real(*arguments, **keywords)

    monkeypatch.setattr(decoding, "decode_rows", interrupted)
    with pytest.raises(KeyboardInterrupt):
        decode(**options, out=tmp_path / "part")
    monkeypatch.setattr(decoding, "decode_rows", real)
    decode(**options, out=tmp_path / "part", resume=True)
    for name, frame in lists.items():
        where = tmp_path / "part" if name == "whole" else tmp_path / "part" / "variations" / name
        assert frame.equals(pl.read_parquet(where / "predictions.parquet"))


def test_what_cannot_be_varied_leaves_nothing_behind(dataset, tmp_path):
    for options, said in (({"vary": ["length=6"]}, "a history of 6 items"), ({"vary_rows": 3}, "without --vary")):
        with pytest.raises(UserError, match=said):
            decode(data=dataset.path, model=MODEL, out=tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()


OTHERS = [
    f"The {word} of {place}" for word in ("Lamp", "River", "Wolf", "Crown") for place in ("Ur", "Oz", "Rome", "Ys")
]


def trained(tmp_path, model=f"{MODEL},tokenizer=bpe", **options):
    """A run of sft with an untrained model of its own dataset."""
    data = write_dataset(tmp_path / "home", **options)
    run = RunFolder(tmp_path / "runs" / "sft")
    run.begin("sft", {"data": str(data.path)}, {})
    load_policy(model, data).save(run.path / "model")
    run.finish({})
    return run.path


def test_a_model_that_writes_titles_answers_another_dataset_beside_its_own(tmp_path, capsys):
    model = trained(tmp_path)
    away = write_dataset(tmp_path / "away", titles=OTHERS)
    results = decode(model=str(model), data=away.path)
    assert results["out"] == str(model / "decode-greedy-test-on-away")
    assert "it transfers what it learnt there" in capsys.readouterr().err
    frame = pl.read_parquet(model / "decode-greedy-test-on-away" / "predictions.parquet")
    assert {title for titles in frame["titles"].to_list() for title in titles} <= {*OTHERS}
    told = evaluate(model / "decode-greedy-test-on-away", baselines=False)
    assert (told["data"]["path"], told["metrics"]["validity"]["mean"]) == (str(away.path), 1.0)
    assert decode(model=str(model), data=tmp_path / "home")["out"] == str(model / "decode-greedy-test")


@pytest.mark.parametrize(
    ("here", "there", "said"),
    [
        ({"identifier": "atomic"}, {}, "it writes items as 'atomic', the dataset as 'title'"),
        ({"identifier": "atomic"}, {"identifier": "atomic"}, "it writes items as 'atomic', the dataset as 'atomic'"),
        ({}, {"task": "next"}, "for the task 'list', and the dataset asks for 'next'"),
        ({"model": MODEL}, {}, "tokenizer"),
    ],
)
def test_what_does_not_transfer_is_told(tmp_path, here, there, said):
    away = write_dataset(tmp_path / "away", titles=OTHERS, **there)
    with pytest.raises(UserError, match=said):
        decode(model=str(trained(tmp_path, **here)), data=away.path)


def test_a_run_with_other_options_gets_a_folder_of_its_own(dataset, tmp_path, capsys):
    first = decode(data=dataset.path, model=MODEL)
    few = decode(data=dataset.path, model=MODEL, limit=2)
    assert first["out"] == str(tmp_path / "runs" / "decode-greedy-test")
    assert few["out"].startswith(first["out"] + "-") and len(few["out"]) == len(first["out"]) + 9
    assert "holds another decode; this one goes to" in capsys.readouterr().err
    assert decode(data=dataset.path, model=MODEL, limit=2) == json.loads(json.dumps(few))
    assert decode(data=dataset.path, model=MODEL)["out"] == first["out"]


def test_predictions_of_all_rows_go_before_those_of_some(dataset, tmp_path):
    run = RunFolder(tmp_path / "runs" / "sft")
    run.begin("sft", {}, {})
    load_policy(MODEL, dataset).save(run.path / "model")
    run.finish({})
    few = decode(data=dataset.path, limit=2)
    assert find_predictions(run.path) == run.path / "decode-greedy-test" == Path(few["out"])
    every = decode(data=dataset.path)
    assert find_predictions(run.path) == Path(every["out"]) != Path(few["out"])


def test_limit_draws_rows_by_seed_and_a_larger_one_holds_a_smaller_one(dataset, tmp_path):
    def rows(**options):
        found = decode(data=dataset.path, model=MODEL, out=tmp_path / str(options), **options)
        return pl.read_parquet(Path(found["out"]) / "predictions.parquet")["row"].to_list()

    draws = {seed: rows(limit=3, seed=seed) for seed in range(4)}
    assert all(len(drawn) == 3 and drawn == sorted(drawn) for drawn in draws.values())
    assert len({tuple(drawn) for drawn in draws.values()}) > 1
    assert set(draws[0]) < set(rows(limit=5, seed=0))
    assert rows(limit=99) == list(range(6))


def test_one_user_is_answered(dataset, tmp_path):
    found = decode(data=dataset.path, model=MODEL, user="u2", out=tmp_path / "out")
    frame = pl.read_parquet(tmp_path / "out" / "predictions.parquet")
    assert frame["user_id"].to_list() == ["u2"]
    assert [example["user_id"] for example in found["examples"]] == ["u2"]
    with pytest.raises(UserError, match="no row of a user 'u22'") as error:
        decode(data=dataset.path, model=MODEL, user="u22", out=tmp_path / "other")
    assert "'u2'" in error.value.hint


def test_it_ends_with_a_few_users_lists_and_marks_hits(dataset, tmp_path, capsys):
    found = decode(data=dataset.path, model=MODEL, out=tmp_path / "out")
    frame = pl.read_parquet(tmp_path / "out" / "predictions.parquet")
    assert len(found["examples"]) == 3
    for example in found["examples"]:
        row, titles = dataset.rows("test")[example["row"]], frame["titles"][example["row"]].to_list()
        relevant = {TITLES[item] for item in row.relevant}
        assert example["history"] == [TITLES[item] for item in row.history[-3:]]
        assert [entry["title"] for entry in example["recommended"]] == titles
        assert [entry["hit"] for entry in example["recommended"]] == [title in relevant for title in titles]
        assert set(example["missed"]) == relevant - set(titles)
    shown = capsys.readouterr().out
    assert "is recommended" in shown and found["examples"][0]["recommended"][0]["title"] in shown
    assert ("(hit)" in shown) == any(entry["hit"] for each in found["examples"] for entry in each["recommended"])
    assert RunFolder(tmp_path / "out").record["results"]["examples"] == json.loads(json.dumps(found["examples"]))
