"""Commands on a GPU, from training to evaluation."""

import json
import signal

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from recalign.data.dataset import PreparedDataset
from recalign.training.online.rollout_step import RolloutStep
from recalign.training.trainer import read_log
from recalign.workspace import RunFolder
from tests.fake_models import byte_level_tokenizer, save_model
from tests.gpu.on_device import DEVICE, NEEDS_GPU, run

pytestmark = NEEDS_GPU


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The embedded dataset by task, and a model of each task after two updates."""
    folder = tmp_path_factory.mktemp("prepared")
    size = ["-p", "users=60", "-p", "items=40", "-p", "genres=4", "-p", "events=14", "--quiet"]
    sizes = {"next": [], "list": ["--list-length", 3], "rank": ["--candidates", 4]}
    for task, options in sizes.items():
        assert run("prepare", "synthetic", *size, "--task", task, *options, "--out", folder / task) == 0
    for task in ("next", "list"):
        options = ["--data", folder / task, "--out", folder / f"sft-{task}", *TINY]
        assert run("sft", *options) == 0
    titles = PreparedDataset(folder / "next").catalogue.titles
    save_model(folder / "hub", byte_level_tokenizer(list(titles)), hidden=32, context=2048)
    return folder


ON = ["--device", DEVICE, "--quiet"]
TINY = [*ON, "--model", "builtin:tiny,hidden=32,layers=1", "--max-steps", 2, "--batch-size", 8, "--valid-rows", 8]
ROLLOUTS = ["--max-steps", 4, "--eval-every", 1, "--prompts-per-step", 4, "--no-report", "--valid-rows", 8,
            "--learning-rate", 0.003]  # fmt: skip
FEW = ["-p", "group_size=4", "-p", "reference_lists=4"]


def assert_memory(megabytes):
    """Of a GPU's own memory a tiny model takes little; the process around it takes gigabytes."""
    assert 0 < megabytes < (500 if DEVICE == "cuda" else 64_000)


def test_supervised_training_computes_in_bfloat16_and_keeps_float32(prepared):
    record = RunFolder(prepared / "sft-next").record
    assert record["status"] == "done" and record["results"]["updates"] == 2
    assert_memory(record["results"]["cost"]["peak_memory_mb"])
    weights = load_file(prepared / "sft-next" / "model" / "model.safetensors")
    assert {each.dtype for each in weights.values()} == {torch.float32}
    assert all(torch.isfinite(each).all() for each in weights.values())


@pytest.mark.parametrize("dtype", ["auto", "bfloat16", "float32"])
def test_an_adapter_is_trained_and_aligned(prepared, tmp_path, dtype):
    training = [*ON, "--data", prepared / "list", "--model", prepared / "hub", "--lora", "--lora-rank", 4]
    options = ["--max-steps", 2, "--batch-size", 4, "--valid-rows", 4, "--dtype", dtype]
    assert run("sft", *training, *options, "--out", tmp_path / "sft") == 0
    align = ["--data", prepared / "list", "--model", tmp_path / "sft", "--reward", "ndcg", "--dtype", dtype]
    assert run("align", *ON, *align, *ROLLOUTS, *FEW, "--objective", "blade", "--out", tmp_path / "align") == 0
    assert (tmp_path / "align" / "model" / "adapter_model.safetensors").is_file()
    assert max(line["sampling_gap"] for line in read_log(tmp_path / "align") if "sampling_gap" in line) < 0.5


def test_alignment_samples_and_learns_in_the_same_numbers(prepared, tmp_path):
    options = ["--data", prepared / "list", "--model", prepared / "sft-list", "--reward", "ndcg", *ROLLOUTS, *FEW]
    assert run("align", *ON, *options, "--objective", "blade", "--out", tmp_path / "align") == 0
    record, log = RunFolder(tmp_path / "align").record, read_log(tmp_path / "align")
    assert record["results"]["updates"] == 4
    assert_memory(record["results"]["memory"]["peak_memory_mb"])
    assert max(line["sampling_gap"] for line in log if "sampling_gap" in line) < 0.1
    assert run("decode", *ON, "--data", prepared / "list", "--model", tmp_path / "align", "--decoder", "bon",
               "--limit", 8, "--out", tmp_path / "bon") == 0  # fmt: skip
    assert run("eval", tmp_path / "bon", "--quiet") == 0


@pytest.mark.filterwarnings("ignore")
def test_an_interrupted_alignment_ends_where_the_uninterrupted_one_does(prepared, tmp_path, monkeypatch):
    """Kernels that add in any order differ by rounding; a lost state of the optimizer would differ by whole steps."""
    options = ["--data", prepared / "list", "--model", prepared / "sft-list", "--reward", "ndcg", *ROLLOUTS, *FEW]
    command = ["align", *ON, *options, "--objective", "blade", "--dtype", "float32"]
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        assert run(*command, "--out", tmp_path / "whole") == 0
        accumulate = RolloutStep.accumulate

        def interrupted(self, model, batch, update):
            if int(batch[0]) == 2:
                signal.raise_signal(signal.SIGINT)
            return accumulate(self, model, batch, update)

        monkeypatch.setattr(RolloutStep, "accumulate", interrupted)
        assert run(*command, "--out", tmp_path / "cut") == 130
        monkeypatch.setattr(RolloutStep, "accumulate", accumulate)
        assert run(*command, "--out", tmp_path / "cut", "--resume") == 0
    finally:
        torch.use_deterministic_algorithms(False)
    whole, cut = (read_log(tmp_path / name) for name in ("whole", "cut"))
    rewards = [[line["reward"] for line in log if "reward" in line] for log in (whole, cut)]
    assert len(rewards[0]) == 4
    assert rewards[1] == pytest.approx(rewards[0], abs=1e-6)
    files = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "cut")]
    moved = load_file(prepared / "sft-list" / "model" / "model.safetensors")
    apart = torch.cat([(files[0][name] - files[1][name]).abs().flatten() for name in moved]).mean()
    assert apart < 0.02 * torch.cat([(files[0][name] - moved[name]).abs().flatten() for name in moved]).mean()


def test_decoders_and_recommenders_make_lists_that_are_measured(prepared, tmp_path):
    data = ["--data", prepared / "next", "--quiet"]
    assert run("baseline", "sasrec", *data, "-p", "epochs=2", "-p", "hidden=16", "--out", tmp_path / "sasrec") == 0
    made = {"sasrec": tmp_path / "sasrec"}
    for decoder, *options in (["beam"], ["beam", "-p", "scoring=full"], ["exact"], ["igd"], ["greedy"], ["sample"],
                              ["d3", "-p", f"assistant={tmp_path / 'sasrec'}"]):  # fmt: skip
        out = made[f"{decoder}{len(options)}"] = tmp_path / f"{decoder}{len(options)}"
        decode = ["--model", prepared / "sft-next", "--decoder", decoder, *options, "--limit", 16, "--out", out]
        assert run("decode", *ON, "--data", prepared / "next", *decode) == 0
        assert_memory(RunFolder(out).record["results"]["cost"]["peak_memory_mb"])
    for out in made.values():
        assert run("eval", out, "--quiet", "--metrics", "ndcg@3,recall@3") == 0
        measured = json.loads((out / "eval" / "metrics.json").read_text())["metrics"]
        assert 0 <= measured["ndcg@3"]["mean"] <= 1
    lists = [pl.read_parquet(made[name] / "predictions.parquet")["items"].to_list() for name in ("beam0", "exact0")]
    assert np.mean([one[0] == two[0] for one, two in zip(*lists, strict=True)]) >= 0.75


def test_a_ranker_is_trained_and_aligned(prepared, tmp_path):
    judge = ["--objective", "judge", "--data", prepared / "rank", "--out", tmp_path / "sft"]
    assert run("sft", *TINY, *judge) == 0
    align = ["--data", prepared / "rank", "--model", tmp_path / "sft", "--objective", "r2rank", "--reward", "ndcg@3"]
    assert run("align", *ON, *align, *ROLLOUTS, "-p", "max_tokens=6", "--out", tmp_path / "align") == 0
    assert max(line["sampling_gap"] for line in read_log(tmp_path / "align") if "sampling_gap" in line) < 0.1
    assert run("decode", *ON, "--data", prepared / "rank", "--model", tmp_path / "align", "--limit", 8,
               "--out", tmp_path / "lists") == 0  # fmt: skip
    assert run("eval", tmp_path / "lists", "--quiet", "--metrics", "ndcg@3,auc") == 0


def test_doctor_shows_where_models_compute(capsys):
    assert run("doctor", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["devices"][0]["device"].startswith(DEVICE)
    if DEVICE == "cuda":
        assert 0 < found["devices"][0]["free_gb"] <= found["devices"][0]["total_gb"]
        assert found["devices"][0]["name"] == torch.cuda.get_device_name(0)
