"""Checkpoints on disk: which of them training can go on from, and what is told of those that it cannot."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from transformers.trainer_callback import TrainerState
from transformers.trainer_pt_utils import safe_globals

from recalign import console
from recalign.errors import UserError
from recalign.models.weights import ADAPTER_FILE, check_files
from recalign.reading import FileRecord, read_object, read_record, reading, sound

STATE_FILE, OBJECTIVE_FILE, PROGRESS_FILE = "trainer_state.json", "objective.json", "progress.json"
OPTIMIZER_FILE, SCHEDULER_FILE, SCALER_FILE = "optimizer.pt", "scheduler.pt", "scaler.pt"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", ADAPTER_FILE)
OLDER = "Delete this checkpoint to go on from an older one."


class Progress(FileRecord):
    """What the updates before a checkpoint came to, those before an interruption included.

    Args:
        updates: how many there were.
        loss: sum of their losses.
        seconds: that they took.
        rows_per_update: examples of an update, over all processes; 0: it does not depend on the processes.
    """

    updates: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    rows_per_update: int = 0


class ControlRecord(FileRecord):
    """What is relied on of transformers' TrainerControl in trainer_state.json."""

    args: dict[str, bool]
    attributes: dict[str, Any]


class CallbackRecords(FileRecord):
    """What is relied on of the callbacks in trainer_state.json."""

    TrainerControl: ControlRecord


class StateRecord(FileRecord):
    """What is relied on in trainer_state.json."""

    global_step: int = Field(ge=0)
    epoch: float | None
    max_steps: int = Field(ge=0)
    num_train_epochs: int = Field(ge=0)
    num_input_tokens_seen: int = 0
    total_flos: float = 0
    train_batch_size: int | None = None
    is_hyper_param_search: bool = False
    is_local_process_zero: bool = True
    is_world_process_zero: bool = True
    log_history: list[dict[str, Any]]
    best_metric: float | None
    best_global_step: int | None
    best_model_checkpoint: str | None
    stateful_callbacks: CallbackRecords


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint of a folder that training can go on from, or None.

    Newer ones that are half-written, damaged or not what they should be are told and passed over.

    Args:
        folder: holds folders `checkpoint-UPDATE`.
    """
    passed_over = 0
    for path in sorted(folder.glob("checkpoint-*"), key=_update_of, reverse=True):
        problem = sound(lambda path=path: check_checkpoint(path))  # type: ignore[misc]
        if not problem:
            if passed_over:
                console.warn(f"The run goes on from the older checkpoint {path}.")
            return path
        passed_over += 1
        console.warn(f"A checkpoint cannot be gone on from: {problem}")
    if passed_over:
        console.warn(f"No checkpoint in {folder} can be gone on from: the training starts again.")
    return None


def check_checkpoint(path: Path) -> None:
    """Refuse a checkpoint that training cannot go on from.

    Args:
        path: of the folder.

    Raises:
        UserError: a file is missing, half-written, damaged or holds something else; weights are pickled alone.
    """
    state = read_record(path / STATE_FILE, StateRecord, OLDER)
    if state["global_step"] != _update_of(path):
        raise UserError(f"{path / STATE_FILE} is of update {state['global_step']}.", OLDER)
    with reading(path / STATE_FILE, OLDER):
        TrainerState.load_from_json(str(path / STATE_FILE))
    if not any((path / name).is_file() for name in WEIGHTS):
        pickled = next((file.name for file in sorted(path.glob("*.bin"))), None)
        held = f"only pickled weights ({pickled}), which can run code and are not read" if pickled else "no weights"
        raise UserError(f"{path} holds {held}.", OLDER)
    check_files(path)
    read_object(path / OBJECTIVE_FILE, OLDER)
    read_record(path / PROGRESS_FILE, Progress, OLDER)
    for name, keys in ((OPTIMIZER_FILE, {"state", "param_groups"}), (SCHEDULER_FILE, {"last_epoch"})):
        _check_state(path / name, keys)
    if (path / SCALER_FILE).is_file():
        _check_state(path / SCALER_FILE, set())
    for file in path.glob("rng_state*.pth"):
        _check_random_state(file)


def settle_best(state: TrainerState, figure: str, *, greater: bool, folder: Path) -> None:
    """Let a state that was read name the best checkpoint that its own log tells, and tell where it claimed another.

    Args:
        state: changed in place.
        figure: that picks the best checkpoint, such as `eval_loss`.
        greater: whether higher values are better.
        folder: holds the checkpoints.
    """
    found = [(line[figure], line["step"]) for line in state.log_history if _number(line.get(figure))]
    if not found:
        state.best_metric = state.best_global_step = state.best_model_checkpoint = None
        return
    value, step = max(found, key=lambda pair: (pair[0] if greater else -pair[0], -pair[1]))
    if state.best_metric != value or state.best_global_step != step:
        console.warn(
            f"{folder}: the newest checkpoint claims {state.best_metric} at update {state.best_global_step} as best "
            f"{figure}; its log says {value} at update {step}, and the log is believed."
        )
    best = folder / f"checkpoint-{step}"
    problem = sound(lambda: check_files(best)) if best.is_dir() else f"{best} does not exist."
    if problem:
        console.warn(f"The best checkpoint so far is lost: {problem} The best from here on is kept.")
        state.best_metric = state.best_global_step = state.best_model_checkpoint = None
        return
    state.best_metric, state.best_model_checkpoint = value, str(best)
    state.best_global_step = int(step)


def _update_of(path: Path) -> int:
    digits = path.name.rpartition("-")[2]
    return int(digits) if digits.isdecimal() and len(digits) < 18 else -1


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_state(file: Path, keys: set[str]) -> None:
    """Refuse a file of tensors that is no table with these keys; pickled code is not run."""
    with reading(file, OLDER):
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        if not isinstance(state, dict) or not keys <= state.keys():
            raise ValueError(f"it holds {type(state).__name__}, without {', '.join(sorted(keys)) or 'any key'}")


def _check_random_state(file: Path) -> None:
    """Refuse a file that holds no states of random number generators."""
    with reading(file, OLDER), safe_globals():
        state = torch.load(file, weights_only=True)
        random.Random().setstate(state["python"])
        np.random.RandomState().set_state(state["numpy"])
        torch.Generator().set_state(state["cpu"])
