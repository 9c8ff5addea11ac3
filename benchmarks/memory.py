"""Most memory of an update, ours and TRL's: a process of its own for each on a CPU, counters set back on a GPU."""

from __future__ import annotations

import contextlib
import gc
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

import grpo
import supervised
from recalign.runs.cost import MemoryWatch
from setting import OFFICE, Setting, Size, make_setting


def peak_memory(what: str, who: str, plan: Any, office: Path | None) -> float:
    """Return the most memory in MB that this process holds in one update, weights and libraries included.

    Args:
        what: `sft` or `grpo`.
        who: `ours` or `peer`.
        plan: sizes, as `plans.Plan` has them.
        office: folder of Amazon Office.
    """
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    setting = make_setting(Size(**plan.model), office or OFFICE).trained_as_timed
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        work = {"sft": _sft, "grpo": _grpo}[what](setting, plan, who, Path(folder))
        gc.collect()  # copies of the model that making the setting left behind
        copied = sum(parameter.nbytes for parameter in setting.policy.model.parameters()) / 2**20
        watch = MemoryWatch(setting.policy.device)
        work()
        return watch.peak_mb() - copied  # both train a copy, and the setting keeps its model


def peak_on_gpu(setting: Setting, what: str, who: str, plan: Any) -> float:
    """Return the most MB that one update allocates on the GPU, the weights that it trains included.

    Args:
        setting: as it is trained; what it and others hold before is not counted.
        what: `sft` or `grpo`.
        who: `ours` or `peer`.
        plan: sizes, as `plans.Plan` has them.
    """
    before = held(setting.policy.device)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        work = {"sft": _sft, "grpo": _grpo}[what](setting, plan, who, Path(folder))
        watch = MemoryWatch(setting.policy.device)
        work()
        return watch.peak_mb() - before


def held(device: torch.device) -> float:
    """MB that are allocated on a GPU when nothing is left of what is done with; 0 on a CPU."""
    gc.collect()  # trainers hold themselves
    return torch.cuda.memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0


def _sft(setting: Setting, plan: Any, who: str, folder: Path) -> Any:
    rows = setting.train[: plan.batch]
    if who == "ours":
        return supervised.update(setting, rows, "sft")
    return supervised.trl_trainer(setting, rows, str(folder), steps=1).train


def _grpo(setting: Setting, plan: Any, who: str, folder: Path) -> Any:
    rows = setting.train[: plan.step_prompts]
    if who == "ours":
        return grpo.our_step(setting, rows, plan.group_size, [])
    return grpo.trl_trainer(
        setting,
        rows,
        folder,
        group_size=plan.group_size,
        longest=96,
        steps=1,
        reward=grpo.vowels,
        accumulation=max(1, len(rows) * plan.group_size // 32),
        mixed=setting.mixed,
    ).train
