"""`recalign align` as users call it: results, defaults, resuming, and what it says about bad input."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from recalign import cli
from recalign.api import UserError
from recalign.commands.align import slug
from recalign.models.policy import load_policy
from recalign.training.alignment import AlignOptions, with_defaults
from recalign.workspace import RunFolder
from tests.fake_dataset import write_dataset

FAST = [
    "--max-steps",
    "6",
    "--eval-every",
    "3",
    "--prompts-per-step",
    "4",
    "-p",
    "group_size=4",
    "-p",
    "reference_lists=4",
]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A dataset and a model folder of a random tiny model on it."""
    folder = tmp_path_factory.mktemp("start")
    dataset = write_dataset(folder / "data")
    load_policy("builtin:tiny,hidden=32", dataset).save(folder / "model")
    return folder


@pytest.fixture
def align(start, tmp_path, capsys):
    """`align(*arguments)`: run the command; returns exit code, stdout, stderr."""

    def call(*arguments, model=None, data=None, fast=FAST):
        where = ["--data", str(data or start / "data"), "--model", str(model or start / "model")]
        with pytest.raises(SystemExit) as stop:
            cli.main(["align", *where, "--out", str(tmp_path / "out"), *fast, *arguments])
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, " ".join(captured.err.split())

    return call


def test_writes_a_run_folder_with_a_model_that_loads(align, start, tmp_path):
    code, out, _ = align("--json", "--reward", "ndcg@3 - 0.1*mgu")
    assert code == 0
    results = json.loads(out)
    assert results["updates"] == 6
    assert list(results["report"]) == ["ndcg@3 - 0.1*mgu", "ndcg@3", "mgu", "recall@3", "ild"]
    means = {metric: change["after"]["mean"] for metric, change in results["report"].items()}
    assert means["ndcg@3 - 0.1*mgu"] == pytest.approx(means["ndcg@3"] - 0.1 * means["mgu"])
    record = RunFolder(tmp_path / "out").record
    assert record["status"] == "done"
    assert record["options"]["reward"] == "ndcg@3 - 0.1*mgu"
    assert record["results"]["diagnostics"]["validity"]["last"] == 1.0
    assert {file.name for file in (tmp_path / "out").iterdir()} >= {"model", "log.jsonl", "curves.png", "checkpoints"}
    from recalign.data.dataset import PreparedDataset

    assert load_policy(tmp_path / "out", PreparedDataset(start / "data")).from_scratch


def test_says_what_memory_a_step_took(align, tmp_path):
    code, _, err = align("--no-report", "--token-budget", "200")
    assert code == 0
    assert re.search(r"Memory: the process held at most [\d,]+ MB in a step; a pass had at most", err)
    assert "tokens (--token-budget 200)" in err
    assert "title trie: 20 titles" in err
    memory = RunFolder(tmp_path / "out").record["results"]["memory"]
    assert 0 < memory["pass_tokens"] <= 200


def test_rows_memory_and_speed_are_options_and_what_a_step_cost_is_recorded(align, tmp_path):
    code, _, err = align("--no-report", "--gradient-checkpointing", "--optim", "adafactor", "--device", "cpu")
    assert code == 0
    assert re.search(
        r"A step: [\d.e-]+ s \(.*rollout .*backward .*\), [\d,]+ tokens and [\d,.]+ rows a second, at most [\d,]+ MB",
        err,
    )
    cost = RunFolder(tmp_path / "out").record["results"]["cost"]
    assert cost["tokens_per_second"] > cost["rows_per_second"] > 0


def test_ends_with_a_table_unless_told_not_to(align):
    code, out, _ = align()
    assert code == 0
    assert "difference" in out
    assert "ndcg@3" in out
    code, out, _ = align("--no-report", "--overwrite")
    assert (code, out) == (0, "")


def test_a_finished_run_is_not_repeated(align):
    assert align()[0] == 0
    code, _, err = align()
    assert code == 0
    assert "is up to date" in err
    code, _, err = align("--seed", "1")
    assert code == 2
    assert "holds another run" in err


def test_defaults_depend_on_where_the_model_comes_from(start, tmp_path):
    scratch = with_defaults(AlignOptions(model=str(start / "model")))
    assert (scratch.training.learning_rate, scratch.params["reference_lists"]) == (1e-3, 32)
    assert scratch.training.max_steps == 120
    shutil.copytree(start / "model", tmp_path / "other")
    settings = json.loads((tmp_path / "other" / "recalign.json").read_text())
    (tmp_path / "other" / "recalign.json").write_text(json.dumps({**settings, "base_model": "someone/llama"}))
    paper = with_defaults(AlignOptions(model=str(tmp_path / "other")))
    assert (paper.training.learning_rate, paper.training.epochs, paper.training.max_steps) == (5e-6, 3.0, 0)
    assert "reference_lists" not in paper.params
    assert with_defaults(AlignOptions(model=str(start / "model"), objective="grpo")).params == {}


def test_every_metric_is_a_reward(align, tmp_path):
    code, out, _ = align("--json", "--reward", "mrr + 0.1*hit@2 - repeats", "--no-report")
    assert code == 0
    assert 0 <= json.loads(out)["best_reward"] <= 1.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--objective", "blad"], "Did you mean 'blade'"),
        (["--reward", "ndgc"], "Did you mean 'ndcg'"),
        (["--reward", "ndcg@10"], "looks at 10 positions, and the lists have 3"),
        (["--reward", "ndcg - 0.1*gini"], "gini is one value for all lists"),
        (["--reward", "pr@3"], "pr@3 needs the model's exact best titles"),
        (["-p", "tua=0.3"], "Did you mean 'tau'"),
        (["--learning-rate", "0"], "nothing is learnt"),
        (["--epochs", "0", "--max-steps", "0"], "--epochs 0 trains nothing"),
        (["--lora-alpha", "8"], "--lora-alpha is given without --lora"),
        (["--model", "nowhere/at/all"], "does not exist"),
    ],
)
def test_bad_input_is_said_with_exit_code_2(align, arguments, message):
    code, _, err = align(*arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_group_size_one_is_refused(align):
    code, _, err = align("-p", "group_size=1", fast=["--max-steps", "2"])
    assert code == 2
    assert "group_size" in err
    assert "greater than or equal to 2" in err


def test_a_model_without_tokenizer_is_refused(align, start, tmp_path):
    shutil.copytree(start / "model", tmp_path / "model")
    for file in (tmp_path / "model").glob("tokenizer*"):
        file.unlink()
    code, _, err = align(model=tmp_path / "model")
    assert code == 2
    assert "has no tokenizer" in err


def test_a_half_written_model_is_refused(align, start, tmp_path):
    shutil.copytree(start / "model", tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    code, _, err = align(model=tmp_path / "model")
    assert code == 2
    assert "half-written" in err


def test_a_half_written_checkpoint_is_passed_over_on_resuming(align, tmp_path, monkeypatch):
    from recalign.training.online.rollout_step import RolloutStep

    accumulate = RolloutStep.accumulate

    def cut(self, model, batch, update):
        if int(batch[0]) == 5:
            raise KeyboardInterrupt
        return accumulate(self, model, batch, update)

    monkeypatch.setattr(RolloutStep, "accumulate", cut)
    assert align()[0] == 130
    assert RunFolder(tmp_path / "out").record["status"] == "interrupted"
    monkeypatch.setattr(RolloutStep, "accumulate", accumulate)
    code, _, err = align()
    assert code == 2
    assert "--resume" in err
    half = tmp_path / "out" / "checkpoints" / "checkpoint-5"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    code, _, _ = align("--resume")
    assert code == 0
    assert RunFolder(tmp_path / "out").record["results"]["updates"] == 6


def test_a_dataset_without_genres_has_no_mgu(align, tmp_path):
    dataset = tmp_path / "plain"
    write_dataset(dataset, titles=[f"Title{index}" for index in range(20)])
    import polars as pl

    items = pl.read_parquet(dataset / "items.parquet")
    items.with_columns(genres=pl.lit([], dtype=pl.List(pl.String))).write_parquet(dataset / "items.parquet")
    code, _, err = align("--reward", "ndcg - 0.5*mgu", data=dataset)
    assert code == 2
    assert "reads genres" in err


def test_rewards_become_folder_names():
    assert slug("ndcg@5 - 0.5*mgu") == "ndcg5-0.5mgu"
    assert slug("ndcg") == "ndcg"
    assert slug("novelty(log_base=2)") == "novelty-log_base2"


ODD = ["--max-steps", "5", "--eval-every", "5", "--rows", "5", "--prompts-per-step", "3", "-p", "group_size=3"]
ODD += ["-p", "reference_lists=5", "--token-budget", "41"]


@pytest.mark.slow
@pytest.mark.parametrize("options", [FAST, ODD], ids=["even", "odd"])
def test_two_processes_share_the_prompts_and_end_with_equal_weights(start, tmp_path, options):
    command = [sys.executable, "-m", "recalign", "align", "--data", start / "data", "--model", start / "model"]
    command += options
    for name, extra in (("one", []), ("two", ["--num-processes", "2"])):
        done = subprocess.run(
            [*map(str, command), "--out", str(tmp_path / name), *extra], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = (RunFolder(tmp_path / name).record["results"] for name in ("one", "two"))
    assert two["updates"] == one["updates"] == int(options[1])
    assert two["best_reward"] == pytest.approx(one["best_reward"], abs=0.05)
    import torch
    from safetensors.torch import load_file

    first, second = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two"))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, atol=2e-3, rtol=0)


def test_errors_of_options_come_before_any_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from recalign.commands.align import align as command

    with pytest.raises(UserError, match="no objective named"):
        command(objective="nope")
    with pytest.raises(UserError):
        command(reward="ndcg@")
    assert not (tmp_path / "runs").exists()
