"""Which of several training processes this one is."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from accelerate import PartialState
from torch import distributed

from recalign import console
from recalign.training.launch import on_our_own

LARGEST = frozenset({"peak_memory_mb", "pass_tokens"})
"""Figures of which the largest of all processes is told."""


def process() -> tuple[int, int]:
    """Return this process's rank and how many processes there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def add_up_gradients(model: torch.nn.Module, scale: float = 1.0) -> None:
    """Sum the gradients of all processes, each of which has run its own backward passes; none counts as 0.

    Args:
        model: whose parameters have the gradients.
        scale: of the sums.
    """
    if process()[1] > 1:
        for parameter in model.parameters():
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                distributed.all_reduce(parameter.grad)
    scale_gradients(model, scale)


def scale_gradients(model: torch.nn.Module, scale: float) -> None:
    """Multiply the gradients of a model's parameters."""
    if scale != 1.0:
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad *= scale


def sum_over_processes(values: Sequence[float], device: torch.device) -> list[float]:
    """Sum numbers over the processes; every process asks for it, with as many."""
    if process()[1] == 1:
        return list(values)
    sums = torch.tensor(values, dtype=torch.float64, device=device)
    distributed.all_reduce(sums)
    return list(sums.tolist())


def connect(device: torch.device) -> None:
    """Join the other processes that a launcher started, if any, and say how many there are.

    Args:
        device: where each process computes.

    A launcher may end up with a single process: accelerate's does on CPUs without MPI.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        with on_our_own():
            PartialState(cpu=device.type == "cpu")
    if "WORLD_SIZE" in os.environ or any(name.startswith("ACCELERATE_") for name in os.environ):
        count = process()[1]
        console.say(f"{count} process{'es share the work' if count > 1 else ' does all the work'}.")


def wait_for_all() -> None:
    """Wait until all processes have come here: one of them has written what the others read."""
    if process()[1] > 1:
        distributed.barrier()


def averaged(figures: Mapping[str, float], weight: float) -> dict[str, float]:
    """Return figures of all processes: means, each process's counted as often as its weight, and of sizes the largest.

    Every process calls this, with figures of its own; one that lacks a figure has no part in its mean.

    Args:
        figures: name -> value in this process.
        weight: how much they stand for, such as the number of completions.
    """
    if process()[1] == 1:
        return dict(figures)
    gathered: list[tuple[dict[str, float], float] | None] = [None] * process()[1]
    distributed.all_gather_object(gathered, (dict(figures), weight))
    told = [each for each in gathered if each is not None]
    found = {}
    for name in dict.fromkeys(name for each, _ in told for name in each):
        parts = [(each[name], share) for each, share in told if name in each]
        total = sum(share for _, share in parts)
        mean = sum(value * share for value, share in parts) / total if total else parts[0][0]
        found[name] = max(value for value, _ in parts) if name in LARGEST else mean
    return found


def relaunch(count: int, *, data: Path, model: str | None = None) -> None:
    """Replace this process by several of the same command, as `accelerate launch` does; in one of those, do nothing.

    Args:
        count: processes on this machine.
        data: the dataset, which exists by now.
        model: the starting model, likewise; None: the command takes none.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return
    # accelerate's launcher starts a single process on CPUs unless MPI is there; torch's starts them everywhere.
    launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(count), "-m", "recalign"]
    found = ["--data", str(data), *(["--model", model] if model is not None else [])]
    arguments = [sys.executable, "-m", *launcher, *sys.argv[1:], *found]
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    sys.stdout.flush()
    os.execv(sys.executable, arguments)
