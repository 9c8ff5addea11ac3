"""The benchmark script at toy sizes: it runs, compares equal results, and prints one JSON object."""

import json
import math
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "run.py"
KEYS = ("beam_full", "beam_renormalised", "exact_over_beam", "rollouts", "bear_over_sft", "help_seconds")
TRL_KEYS = ("grpo_full", "grpo_real")


def run(*arguments):
    command = [sys.executable, str(SCRIPT), "--smoke", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True)


@pytest.mark.slow
def test_smoke_run_prints_one_json_object_with_every_key(tmp_path):
    report = json.loads(run("--json", "--office", str(tmp_path / "none")).stdout)
    for key in KEYS + TRL_KEYS:
        if key in TRL_KEYS and find_spec("trl") is None:
            assert report[key] is None
            assert "not installed" in report["details"][key]["note"]
        else:
            assert math.isfinite(report[key])
            assert report[key] > 0
    assert report["environment"]["titles"] == "generated titles"
    assert report["details"]["beam_full"]["pairs"] >= 1


def test_without_json_the_chosen_benchmarks_come_as_a_table(tmp_path):
    out = run("--only", "help_seconds", "--office", str(tmp_path / "none")).stdout
    assert "help_seconds" in out
    assert "< 0.5" in out
    assert "beam_full" not in out


def test_an_unknown_benchmark_is_refused_with_the_known_ones():
    command = [sys.executable, str(SCRIPT), "--only", "nonsense"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "beam_full" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(find_spec("trl") is None, reason="trl is not installed")
def test_updates_and_their_memory_are_compared_with_trls(tmp_path):
    names = ("sft_step", "sft_memory", "grpo_memory")
    chosen = [argument for name in names for argument in ("--only", name)]
    report = json.loads(run("--json", *chosen, "--clock", "processor", "--office", str(tmp_path / "none")).stdout)
    assert all(report[name] > 0 for name in names)
    assert "MB against" in report["details"]["sft_memory"]["note"]


def test_toy_sizes_have_a_model_of_their_own():
    command = [sys.executable, str(SCRIPT), "--smoke", "--model", "smollm2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--quick" in done.stderr


@pytest.mark.slow
def test_growth_tables_are_filled(tmp_path):
    report = json.loads(run("--json", "--only", "growth", "--office", str(tmp_path / "none")).stdout)
    assert set(report["growth"]) == {
        "catalogue size",
        "beam width",
        "group size",
        "prompt length",
        "prompts a batch",
        "matrix rate",
    }
    assert [row["tokens"] for row in report["growth"]["prompt length"]] == [64, 128, 256, 512, 1024]
    for rows in report["growth"].values():
        assert rows
        assert not any(math.isnan(value) for row in rows for value in row.values() if isinstance(value, float))
