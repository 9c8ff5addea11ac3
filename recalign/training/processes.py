"""Which of several training processes this one is."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import PartialState
from torch import distributed


def process() -> tuple[int, int]:
    """Return this process's rank and how many processes there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def add_up_gradients(model: torch.nn.Module) -> None:
    """Sum the gradients of all processes, each of which has run its own backward passes; none counts as 0."""
    if process()[1] == 1:
        return
    for parameter in model.parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(parameter.grad)


def sum_over_processes(values: Sequence[float], device: torch.device) -> list[float]:
    """Sum numbers over the processes; every process asks for it, with as many."""
    if process()[1] == 1:
        return list(values)
    sums = torch.tensor(values, dtype=torch.float64, device=device)
    distributed.all_reduce(sums)
    return list(sums.tolist())


def connect(device: torch.device) -> None:
    """Join the other processes that a launcher started, if any, each of which computes on such a device."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        PartialState(cpu=device.type == "cpu")


def relaunch(count: int, *, data: Path, model: str) -> None:
    """Replace this process by several of the same command, as `accelerate launch` does; in one of those, do nothing.

    Args:
        count: processes on this machine.
        data: the dataset, which exists by now.
        model: the starting model, likewise.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return
    # accelerate's launcher starts a single process on CPUs unless MPI is there; torch's starts them everywhere.
    launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(count), "-m", "recalign"]
    arguments = [sys.executable, "-m", *launcher, *sys.argv[1:], "--data", str(data), "--model", str(model)]
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    sys.stdout.flush()
    os.execv(sys.executable, arguments)
