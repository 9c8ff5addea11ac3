"""The one Trainer subclass, for supervised training and alignment alike: a step object says what the loss is."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from torch.utils.data import DataLoader, Dataset
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer

from recalign import console
from recalign.api import Objective
from recalign.errors import UserError
from recalign.interrupts import on_signals
from recalign.models.hardware import mixed_precision
from recalign.models.modules import attached, restore_modules
from recalign.models.policy import Policy
from recalign.models.products import training_products
from recalign.reading import MAX_BYTES, parse_json, read_object, read_record, read_text, reading
from recalign.training.accumulation import Accumulation
from recalign.training.batches import Batches, DealtBatches
from recalign.training.checkpoints import (
    OBJECTIVE_FILE,
    OLDER,
    OPTIMIZER_FILE,
    PROGRESS_FILE,
    SCHEDULER_FILE,
    Progress,
    latest_checkpoint,
    settle_best,
)
from recalign.training.flow import Flow
from recalign.training.launch import engine, on_our_own
from recalign.training.offline.examples import EpochSampler
from recalign.training.processes import averaged, process
from recalign.training.sharding import Sharding, Unwrapped, shared_out
from recalign.training.speed import Meter, Work, cost_line, seconds_by_part
from recalign.training.trackers import TrackedRun, Tracking
from recalign.training.training_options import CHECKPOINTS, TrainingOptions
from recalign.training.validation import Validated
from recalign.workspace import write_json

LOG_FILE = "log.jsonl"


class TrainingStep(Protocol):
    """What one training step computes.

    Attributes:
        objective: whose loss it is.
        runs_wrapped: whether it runs the model that it is handed, with dropout and perhaps wrapped by DDP, which
            averages gradients over processes; else it runs the policy's own, without dropout.
        work: what it has run so far.
    """

    objective: Objective
    runs_wrapped: bool
    work: Work

    def begin(self, batches: Sequence[Any]) -> None:
        """Look at the batches of an update of this process, before the first of them is accumulated."""

    def accumulate(self, model: torch.nn.Module, batch: Any, update: Accumulation) -> dict[str, float]:
        """Run a batch's forward and backward passes, whole or in parts, by `update.add`; return figures to log."""


class RecalignTrainer(Trainer):
    """transformers.Trainer with our step, validation, log, display and interruption.

    Args:
        policy: what is trained.
        step: computes the loss of a batch.
        options: how to train.
        out: the run folder; checkpoints and `log.jsonl` are written there.
        examples: a dataset indexed by (epoch, index).
        collate: a list of examples -> a batch as the step takes it.
        validate: finds the validation figures, among them `options.best_metric`.
        length_of: see EpochSampler.
        batches: of this process, in place of those that an EpochSampler and `options` make.
        title: what is shown calls this.
        before: validation of the policy before the first update, where it was made.
    """

    def __init__(
        self,
        policy: Policy,
        step: TrainingStep,
        options: TrainingOptions,
        out: Path,
        examples: Dataset[Any],
        collate: Callable[[list[Any]], Any],
        validate: Callable[[], Validated],
        *,
        length_of: Callable[[int], int] | None = None,
        batches: Batches | None = None,
        title: str = "training",
        before: Validated | None = None,
    ) -> None:
        self.policy, self.step, self.options, self.out = policy, step, options, Path(out)
        self.validate, self.title, self.before = validate, title, before
        self.shards: Sharding | None = None
        self.engine = engine() if process()[1] > 1 else ""
        averaging = step.runs_wrapped and not self.engine
        self.accumulation = Accumulation(policy.model, averaged=averaging, watch=step.work.watch)
        self.meter = Meter(policy.device, step.work)
        size: int = len(examples)  # type: ignore[arg-type]
        rank, processes = process()
        self.rows_per_update = options.batch_size * options.gradient_accumulation * processes if batches is None else 0
        self.batches = batches or DealtBatches(
            EpochSampler(size, self.rows_per_update, options.seed, length_of),
            self.rows_per_update,
            options.gradient_accumulation,
            rank,
            processes,
        )
        self._figures: dict[str, list[float]] = defaultdict(list)
        self.progress, self._started = Progress(), time.perf_counter()
        weights = next(parameter for parameter in policy.model.parameters() if parameter.requires_grad)
        self.precision = partial(mixed_precision, policy.device, weights.dtype)
        self.flow, run = Flow(self), TrackedRun.of(self.out)
        with on_our_own():
            super().__init__(
                model=policy.model,
                args=options.arguments(run, policy.device),
                data_collator=collate,
                train_dataset=examples,
                eval_dataset=examples,  # `evaluate` reads its own rows; transformers wants to see some
                callbacks=[self.flow],
            )
        self.model_accepts_loss_kwargs = False
        self.remove_callback(PrinterCallback)
        first = options.report_to if self.is_world_process_zero() else ()
        self.tracking = Tracking(first, run, self.callback_handler.callbacks)
        if options.patience:
            self.add_callback(EarlyStoppingCallback(options.patience))

    def run(self, *, resume: bool = False) -> dict[str, Any]:
        """Train, showing how it goes; the best checkpoint's weights are in the policy at the end.

        Args:
            resume: go on from the newest complete checkpoint, where there is one.

        Returns:
            updates, best validation figure and its update, mean loss and seconds of the whole run, what was done
            before an interruption included; `cost`: tokens and rows a second, rows and seconds an update, most memory
            of an update, since the last interruption; `seconds_a_step`: of each part of an update.

        Raises:
            KeyboardInterrupt: after Ctrl-C or SIGTERM, when the present update is done and a checkpoint is saved.
            UserError: the loss became NaN or infinite; the disk is full.
        """
        checkpoint = latest_checkpoint(self.out / CHECKPOINTS) if resume else None
        self._start_log(checkpoint)
        self._started = time.perf_counter()
        flow = self.flow
        with contextlib.ExitStack() as stack:
            flow.stack = stack
            stack.enter_context(on_signals(flow.stop))
            stack.enter_context(on_our_own())
            stack.enter_context(self.tracking.running(_update_of(checkpoint)))
            stack.enter_context(training_products(self.policy.model))
            self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if flow.stopped:
            raise KeyboardInterrupt
        cost = self.meter.total.figures()
        parts = seconds_by_part(read_log(self.out))
        console.say(cost_line(cost, parts))
        return {
            "updates": self.state.global_step,
            "best_update": self.state.best_global_step,
            f"best_{self.options.best_metric}": self.state.best_metric,
            "train_loss": self.progress.loss / max(self.progress.updates, 1),
            "seconds": self._seconds(),
            "cost": cost,
            "seconds_a_step": parts,
        }

    # ------------------------------------------------------------ what transformers calls

    def autocast_smart_context_manager(self, cache_enabled=True):  # type: ignore[no-untyped-def]
        """Mix precisions in every part of a step; accelerate would in the model's own forward alone."""
        return self.precision()

    def training_step(self, model, inputs, num_items_in_batch=None):  # type: ignore[no-untyped-def]
        """Accumulate a batch, remember its figures until the next line of the log; return the loss after the last one.

        The loss is that of the whole update, of all its batches in all processes; before the last batch it is 0.
        """
        model.train(self.step.runs_wrapped)
        with self.compute_loss_context_manager():
            figures = self.step.accumulate(model, inputs, self.accumulation)
        for name, value in figures.items():
            self._figures[name].append(float(value))
        if not self.accelerator.sync_gradients:
            return torch.zeros((), device=self.policy.device)
        self.step.work.watch.switch("optimizer")
        loss = self.accumulation.finish()
        if not bool(torch.isfinite(loss)):
            raise UserError(
                f"The loss became {loss.item()} at update {self.state.global_step + 1}.",
                f"Use a lower --learning-rate than {self.options.learning_rate:g}; the last checkpoint is kept.",
            )
        self.progress.updates, self.progress.loss = self.progress.updates + 1, self.progress.loss + float(loss)
        return loss

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):  # type: ignore[no-untyped-def]
        """Validate: every figure that `validate` returns, under the name `eval_NAME`."""
        training = self.model.training
        self.model.eval()
        with self.flow.validating(), self.compute_loss_context_manager():
            found = self.validate()
        figures = {f"{metric_key_prefix}_{name}": float(value) for name, value in found.figures.items()}
        self.model.train(training)
        self.log(dict(figures))
        self.flow.show_validated(found)
        self.tracking.show(found.samples, self.state.global_step)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, figures)
        return figures

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the step's figures, and write a line of `log.jsonl`."""
        if "loss" in logs:
            means = {name: float(np.mean(values)) for name, values in self._figures.items()}
            batches = max((len(values) for values in self._figures.values()), default=0)
            logs = {**logs, **averaged(means, batches)}
            logs |= self.meter.report(self.state.max_steps - self.state.global_step)
            self._figures.clear()
        super().log(logs, start_time)
        if self.is_world_process_zero() and "train_runtime" not in logs:
            record = {"step": self.state.global_step, **{k: v if math.isfinite(v) else None for k, v in logs.items()}}
            with (self.out / LOG_FILE).open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")

    def create_optimizer(self, model=None):  # type: ignore[no-untyped-def]
        """Make the optimizer; modules beside the model may have a learning rate of their own."""
        optimizer = super().create_optimizer(model)
        beside = {id(weight) for module in attached(self.policy.model).values() for weight in module.parameters()}
        if self.options.module_learning_rate and len(optimizer.param_groups) == 2:  # not yet split
            for group in tuple(optimizer.param_groups):
                mine = [parameter for parameter in group["params"] if id(parameter) in beside]
                group["params"] = [parameter for parameter in group["params"] if id(parameter) not in beside]
                if mine:
                    same = {name: value for name, value in group.items() if name != "params"}
                    optimizer.add_param_group({**same, "params": mine, "lr": self.options.module_learning_rate})
        if self.engine:
            self.shards = shared_out(self.engine, self.policy.model, optimizer)
            self.accumulation.add_up = self.shards.reduce
            self.optimizer = optimizer = self.shards.optimizer
        return optimizer

    def _wrap_model(self, model, training=True, dataloader=None):  # type: ignore[no-untyped-def]
        return super()._wrap_model(model, training, dataloader) if self.shards is None else Unwrapped(model)

    def _clip_grad_norm(self, model):  # type: ignore[no-untyped-def]
        return super()._clip_grad_norm(model) if self.shards is None else self.shards.clip(self.args.max_grad_norm)

    def _get_grad_norm(self, model, grad_norm=None):  # type: ignore[no-untyped-def]
        if self.shards is not None and grad_norm is None:
            grad_norm = self.shards.clip(math.inf)
        return super()._get_grad_norm(model, grad_norm)

    def get_batch_samples(self, epoch_iterator, num_batches, device):  # type: ignore[no-untyped-def]
        """Take the batches of an update; what the loss is divided by is for the objective to say.

        There are none after the last update: transformers asks once more where a run was cut off behind it and resumes.
        """
        if self.state.global_step >= self.state.max_steps:
            return [], None
        self.meter.begin()
        batches = list(itertools.islice(epoch_iterator, num_batches))
        self.step.work.watch.switch("forward")
        with self.compute_loss_context_manager():
            self.step.begin(batches)
        return batches, None

    def floating_point_ops(self, inputs: Any) -> int:
        """Count nothing: the estimate is for padded batches of token ids, which a step need not have."""
        return 0

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Load the batches of this process; they are dealt out already."""
        return DataLoader(self.train_dataset, batch_sampler=self.batches, collate_fn=self.data_collator)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self.policy.save_into(folder, self.policy.model)
        write_json(folder / OBJECTIVE_FILE, self.step.objective.state_dict())
        now = {"seconds": self._seconds(), "rows_per_update": self.rows_per_update}
        write_json(folder / PROGRESS_FILE, {**self.progress.model_dump(), **now})

    def _save_checkpoint(self, *arguments: Any, **keywords: Any) -> None:
        try:
            super()._save_checkpoint(*arguments, **keywords)
        except (OSError, SafetensorError, RuntimeError) as error:
            # torch and safetensors tell of a full disk in the words of their own source
            said = error.strerror if isinstance(error, OSError) and error.strerror else "the disk took no more"
            raise UserError(
                f"Saving a checkpoint in {self.args.output_dir} failed: {said}.",
                "Free some space, then go on with --resume.",
            ) from error

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        self.progress = Progress(**read_record(folder / PROGRESS_FILE, Progress, OLDER))
        before, now = self.progress.rows_per_update, self.rows_per_update
        if before and now and before != now:
            raise UserError(
                f"Updates had {before} rows up to {folder}; with {process()[1]} processes they would have {now}.",
                "Go on with as many processes as before, or start again with --overwrite.",
            )
        with reading(folder, OLDER, "cannot be gone on from"):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            restore_modules(self.policy.model, folder)
            self.step.objective.load_state_dict(read_object(folder / OBJECTIVE_FILE, OLDER))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.shards is None:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = self.shards.whole_state()
        if self.args.should_save:
            torch.save(state, Path(output_dir) / OPTIMIZER_FILE)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_FILE)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with reading(checkpoint or self.out, OLDER, "cannot be gone on from"):
            if self.shards is None or checkpoint is None:
                super()._load_optimizer_and_scheduler(checkpoint)
                return
            state = torch.load(Path(checkpoint) / OPTIMIZER_FILE, map_location="cpu", weights_only=True)
            self.shards.load_state(state)
            self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_FILE, weights_only=True))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        name = f"rng_state_{self.args.process_index}.pth" if self.args.world_size > 1 else "rng_state.pth"
        if checkpoint is not None and not (Path(checkpoint) / name).is_file():
            console.warn(
                f"{checkpoint} has no {name}: random numbers begin anew, and the run no longer ends where an "
                "uninterrupted one would."
            )
        super()._load_rng_state(checkpoint)

    def _load_callback_state(self) -> None:
        with reading(self.out / CHECKPOINTS, OLDER, "cannot be gone on from"):
            super()._load_callback_state()
        self.state.compute_steps(self.args, self.state.max_steps)  # the options', not the file's
        better = self.args.greater_is_better
        settle_best(self.state, self.args.metric_for_best_model, greater=better, folder=self.out / CHECKPOINTS)

    def _load_best_model(self) -> None:
        with reading(self.state.best_model_checkpoint, "Train again.", "cannot be loaded as the best checkpoint"):
            super()._load_best_model()
            restore_modules(self.policy.model, Path(self.state.best_model_checkpoint))

    def _seconds(self) -> float:
        """What the run has taken so far, before an interruption included."""
        return self.progress.seconds + time.perf_counter() - self._started

    def _start_log(self, checkpoint: Path | None) -> None:
        """Forget what an interrupted run logged after the checkpoint that we go on from."""
        if not self.is_world_process_zero():
            return
        self.out.mkdir(parents=True, exist_ok=True)
        lines = read_log(self.out) if checkpoint else []
        last = _update_of(checkpoint)
        kept = [json.dumps(line) + "\n" for line in lines if line["step"] <= last]
        (self.out / LOG_FILE).write_text("".join(kept), encoding="utf-8")


def _update_of(checkpoint: Path | None) -> int:
    """Return the update after which a checkpoint was saved; 0: there is none."""
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


def read_log(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's `log.jsonl`; one that is none, such as a last one that was cut off, is left out."""
    file = Path(run) / LOG_FILE
    lines: Sequence[str] = read_text(file, MAX_BYTES).splitlines() if file.is_file() else []
    records = []
    for line in lines:
        with contextlib.suppress(UserError):
            record = parse_json(line, file)
            if isinstance(record, dict) and isinstance(record.get("step"), int):
                records.append(record)
    return records
