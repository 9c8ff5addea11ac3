"""`recalign sft` on the command line."""

import json
import subprocess
import sys

import pytest

from recalign.cli import main
from recalign.training.trainer import read_log
from recalign.workspace import home
from tests.fake_dataset import write_dataset


@pytest.fixture
def data(tmp_path):
    write_dataset(tmp_path / "data")
    return str(tmp_path / "data")


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        main([*map(str, arguments)])
        raise SystemExit(0)
    return stop.value.code or 0


def test_json_is_one_object_on_stdout_and_the_model_lies_in_the_workspace(data, capsys):
    assert run("sft", "--data", data, "--epochs", 1, "--batch-size", 8, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["updates"] == 3
    assert result["out"] == str(home() / "sft")
    assert (home() / "sft" / "model" / "recalign.json").is_file()
    assert any("eval_metric" in line for line in read_log(home() / "sft"))


def test_any_metric_validates_and_a_harm_that_would_be_raised_is_warned_of(data, capsys):
    options = ["--data", data, "--epochs", 1, "--batch-size", 8, "--json"]
    assert run("sft", *options, "--metric", "hit@3") == 0
    assert any(0 <= line.get("eval_metric", -1) <= 1 for line in read_log(home() / "sft"))
    capsys.readouterr()
    assert run("sft", *options, "--metric", "mgu", "--overwrite") == 0
    assert "did you mean -mgu?" in capsys.readouterr().err


def test_parameters_reach_the_objective(data, capsys):
    options = ["--data", data, "--epochs", 1, "--batch-size", 8, "--objective", "msl"]
    assert run("sft", *options, "-p", "temperature=2.5") == 0
    assert run("sft", *options, "-p", "temprature=2.5", "--overwrite") == 2
    assert "temperature" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--model", "builtin:tyni"], "builtin:tiny"),
        (["--objective", "blade"], "align"),
        (["--template", "alpacca"], "alpaca"),
        (["--lora"], "--lora"),
        (["--metric", "ndgc@3"], "ndcg"),
        (["--metric", "coverage"], "coverage is one value for all lists"),
        (["--learning-rate", "0"], "nothing is learnt"),
        (["--epochs", "0"], "--epochs 0 trains nothing"),
        (["--lora-rank", "4"], "--lora-rank is given without --lora"),
        (["--lora-target", "q_proj"], "--lora-target is given without --lora"),
    ],
)
def test_wrong_input_ends_with_code_2_and_advice(data, capsys, options, word):
    assert run("sft", "--data", data, *options) == 2
    error = capsys.readouterr().err
    assert word in error and "Traceback" not in error


def test_quiet_says_nothing(data, capsys):
    assert run("sft", "--data", data, "--epochs", 1, "--batch-size", 8, "--quiet") == 0
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.slow
def test_two_processes_train_one_model_and_speak_once(data, tmp_path):
    out = tmp_path / "out"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    options = ["--data", data, "--out", out, "--epochs", 2, "--batch-size", 4, "--log-every", 1, "--json"]
    finished = subprocess.run(
        [*map(str, [*launcher, "-m", "recalign", "sft", *options])], capture_output=True, text=True, check=True
    )
    result = json.loads(finished.stdout)
    assert result["updates"] == 2 * 24 // (4 * 2)  # every row once an epoch, over both
    losses = [line["loss"] for line in read_log(out) if "loss" in line]
    assert len(losses) == result["updates"] and losses[-1] < losses[0]
    assert (out / "model" / "model.safetensors").is_file()


def test_a_backbone_and_its_parameters_are_recorded_with_the_model(tmp_path, capsys):
    write_dataset(tmp_path / "atomic", identifier="atomic", task="next")
    options = ("--data", tmp_path / "atomic", "--epochs", 1, "--batch-size", 8, "--out", tmp_path / "run", "--json")
    assert run("sft", *options, "--backbone", "item-vectors", "--backbone-param", "dimensions=5") == 0
    recorded = json.loads((tmp_path / "run" / "model" / "recalign.json").read_text())
    assert recorded["backbone"] == {"name": "item-vectors", "params": {"embeddings": None, "dimensions": 5}}
    capsys.readouterr()
    assert run("sft", *options[:-1], "--overwrite", "--backbone", "item-vector") == 2
    assert "item-vectors" in capsys.readouterr().err


def test_a_backbone_does_not_fit_titles(data, tmp_path, capsys):
    assert run("sft", "--data", data, "--out", tmp_path / "run", "--backbone", "item-vectors") == 2
    assert "--identifier atomic" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
