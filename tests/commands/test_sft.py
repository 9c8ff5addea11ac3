"""`recalign sft` on the command line."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_file

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
        (["--optim", "adamw_torhc"], "adamw_torch"),
        (["--optim", "lomo"], "--optim 'lomo' cannot be had here: You need to install `lomo_optim`"),
        (["--attn-implementation", "sdpaa"], "'sdpa'"),
        (["--load-in-4bit", "--load-in-8bit"], "given together"),
        (["--load-in-4bit"], "random weights"),
        (["--model", "some/where/no.gguf"], "does not exist"),
    ],
)
def test_wrong_input_ends_with_code_2_and_advice(data, capsys, options, word):
    assert run("sft", "--data", data, *options) == 2
    error = capsys.readouterr().err
    assert word in error and "Traceback" not in error


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_an_optimizer_without_its_package_is_told_before_anything_is_made(data, capsys, tmp_path):
    kept = tmp_path / "kept"
    assert run("sft", "--data", data, "--epochs", 1, "--batch-size", 8, "--quiet", "--out", kept) == 0
    capsys.readouterr()
    assert run("sft", "--data", data, "--optim", "paged_adamw_8bit", "--overwrite", "--out", kept) == 2
    error = capsys.readouterr().err
    assert "bitsandbytes" in error and "recalign[quantized]" in error
    assert (kept / "model" / "config.json").is_file()


def test_quiet_says_nothing(data, capsys):
    assert run("sft", "--data", data, "--epochs", 1, "--batch-size", 8, "--quiet") == 0
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_what_an_update_is_made_of_and_what_it_cost_is_shown_and_recorded(data, capsys):
    options = ["--epochs", 1, "--batch-size", 4, "--gradient-accumulation", 2, "--rows", 16, "--token-budget", 60]
    options += ["--optim", "adafactor", "--gradient-checkpointing", "--device", "cpu", "--attn-implementation", "eager"]
    assert run("sft", "--data", data, *options) == 0
    told = capsys.readouterr().err
    assert "An update has 8 rows: 4 rows per batch x 2 batches x 1 processes; a pass has at most 60 tokens." in told
    parts = r"data .*, forward .*, backward .*, optimizer .*"
    cost = r"[\d,]+ tokens and [\d,.]+ rows a second, at most [\d,]+ MB of memory"
    assert re.search(rf"A step: [\d.e-]+ s \({parts}\), {cost}", told)
    record = json.loads((home() / "sft" / "run.json").read_text())
    assert set(record["results"]["seconds_a_step"]) == {"data", "forward", "backward", "optimizer"}
    cost = record["results"]["cost"]
    assert (record["results"]["updates"], cost["rows_per_update"]) == (2, 8)
    assert cost["tokens_per_second"] > cost["rows_per_second"] > 0 and cost["peak_memory_mb"] > 10
    training = record["options"]["training"]
    assert (training["optim"], training["gradient_checkpointing"], training["token_budget"]) == ("adafactor", True, 60)
    assert record["options"]["hardware"] == {"attn_implementation": "eager", "device": "cpu", "quantization": None}


def test_a_line_of_the_log_says_how_fast_and_how_long(data):
    assert run("sft", "--data", data, "--epochs", 1, "--batch-size", 8, "--log-every", 1, "--quiet") == 0
    lines = [line for line in read_log(home() / "sft") if "loss" in line]
    assert all(line["tokens_per_second"] > 0 and line["peak_memory_mb"] > 0 for line in lines)
    left = [line["seconds_left"] for line in lines]
    assert left[-1] == 0 and left[0] > 0


def test_checkpointed_gradients_and_cut_batches_train_the_same_model(data, tmp_path):
    options = ["--data", data, "--epochs", 1, "--batch-size", 8, "--quiet"]
    assert run("sft", *options, "--out", tmp_path / "whole") == 0
    cut = ["--gradient-checkpointing", "--token-budget", 60]
    assert run("sft", *options, *cut, "--out", tmp_path / "cut") == 0
    weights = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "cut")]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, atol=1e-4, rtol=1e-3)


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
