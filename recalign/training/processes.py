"""Which of several training processes this one is."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from torch import distributed


def process() -> tuple[int, int]:
    """Return this process's rank and how many processes there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def connect() -> None:
    """Join the other processes that `accelerate launch` started, if any."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        PartialState(cpu=not torch.cuda.is_available())


def relaunch(count: int, *, data: Path, model: str) -> None:
    """Replace this process by `accelerate launch` of the same command in several; in one of those, do nothing.

    Args:
        count: processes on this machine.
        data: the dataset, which exists by now.
        model: the starting model, likewise.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return
    place = ["--multi_gpu"] if torch.cuda.device_count() >= count else ["--cpu"]
    launcher = ["accelerate.commands.launch", "--num_processes", str(count), "--num_machines", "1", *place]
    launcher += ["--mixed_precision", "no", "--dynamo_backend", "no", "-m", "recalign"]
    arguments = [sys.executable, "-m", *launcher, *sys.argv[1:], "--data", str(data), "--model", str(model)]
    sys.stdout.flush()
    os.execv(sys.executable, arguments)
