"""Figures of several processes, and how many there are."""

import os
import subprocess
import sys

import pytest
import torch

from recalign import console
from recalign.runs.predictions import PREDICTIONS_FILE
from recalign.training.processes import averaged, connect
from tests.commands.test_processes import spawn
from tests.fake_dataset import write_dataset

AVERAGED = """
import json, os, torch
from recalign.training.processes import averaged, connect, wait_for_all
connect(torch.device("cpu"))
rank = int(os.environ["RANK"])
mine = {"entropy": 1.0 + 2 * rank, "pass_tokens": 10.0 * (rank + 1), **({"kl": 5.0} if rank else {})}
found = averaged(mine, weight=3 - 2 * rank)
wait_for_all()
if rank == 0:
    print(json.dumps(found))
"""


def test_one_process_has_its_own_figures():
    assert averaged({"entropy": 0.5}, 3) == {"entropy": 0.5}


def test_a_launcher_that_starts_one_process_is_told_of(monkeypatch):
    said = []
    monkeypatch.setattr(console, "say", said.append)
    for name in [name for name in os.environ if name.startswith("ACCELERATE_") or name == "WORLD_SIZE"]:
        monkeypatch.delenv(name)
    connect(torch.device("cpu"))
    assert said == []
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")  # what accelerate launch sets
    connect(torch.device("cpu"))
    assert said == ["1 process does all the work."]


@pytest.mark.slow
def test_figures_are_those_of_all_processes(tmp_path):
    """(3 * 1 + 1 * 3) / 4, the larger of 10 and 20, and 5 of the one process that has it."""
    (tmp_path / "two.py").write_text(AVERAGED)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*launcher, tmp_path / "two.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert '{"entropy": 1.5, "pass_tokens": 20.0, "kl": 5.0}' in done.stdout
    assert "2 processes share the work." in done.stderr


@pytest.mark.slow
def test_two_processes_train_and_decode_by_an_option_of_the_command(tmp_path):
    data = write_dataset(tmp_path / "data", task="next")
    small = ["--data", data.path, "--model", "builtin:tiny,hidden=16,heads=2"]
    train = ["--max-steps", 2, "--metric", "none", "--valid-rows", 4, "--num-processes", 2]
    spawn(["recalign", "sft", *small, *train, "--out", tmp_path / "sft"])
    model = ["--data", data.path, "--model", tmp_path / "sft", "--batch-size", 2]
    spawn(["recalign", "decode", *model, "--out", tmp_path / "one"])
    spawn(["recalign", "decode", *model, "--num-processes", 2, "--out", tmp_path / "two"])
    one, two = ((tmp_path / name / PREDICTIONS_FILE).read_bytes() for name in ("one", "two"))
    assert one == two
