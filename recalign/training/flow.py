"""What happens between a trainer's updates: what is shown, the examples' epoch, and stopping when asked to."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from transformers import TrainerCallback

from recalign import console
from recalign.training.panel import TrainingPanel
from recalign.training.processes import sum_over_processes
from recalign.training.standing import VALID, Standing
from recalign.training.validation import Validated

if TYPE_CHECKING:
    from recalign.training.trainer import RecalignTrainer


class Flow(TrainerCallback):
    """What is shown, the examples' epoch, and stopping when asked to.

    A terminal shows a panel, anything else a progress bar, one line at the end; of several processes the first alone.

    Args:
        trainer: whose updates they are.

    Attributes:
        stack: what the display is entered on.
        standing: what is shown.
        stopped: whether the training is to stop after the present update.
    """

    def __init__(self, trainer: RecalignTrainer) -> None:
        self.trainer = trainer
        self.stack = contextlib.ExitStack()
        self.standing = Standing(trainer.title, 0, trainer.options.best_metric)
        self.stopped = False
        self._changed: Callable[[], None] = lambda: None

    def stop(self) -> None:
        """Stop after this update, with a checkpoint."""
        if not self.stopped:
            console.say("stopping after this update, with a checkpoint; once more stops at once.")
        self.stopped = True

    def on_train_begin(self, args, state, control, **_):  # type: ignore[no-untyped-def]
        """Show how it stands, what was logged before an interruption included."""
        begun = state.global_step
        self.standing = replace(self.standing, total=state.max_steps, updates=begun, resumed_at=begun)
        self.standing = replace(self.standing, began=time.monotonic())
        for line in state.log_history:
            self.standing = self.standing.logged(line, line["step"])
        if self.trainer.before is not None and not begun:
            before = {f"{VALID}{name}": value for name, value in self.trainer.before.figures.items()}
            self.standing = self.standing.logged(before, 0).validated(self.trainer.before, 0)
            self.trainer.tracking.show(self.trainer.before.samples, 0)
        if state.is_world_process_zero:
            self._changed = self.stack.enter_context(display(lambda: self.standing))
            self._changed()

    @contextlib.contextmanager
    def validating(self) -> Iterator[None]:
        """Say that a validation goes on."""
        self.standing = replace(self.standing, activity="validating")
        yield
        self.standing = replace(self.standing, activity="")

    def show_validated(self, found: Validated) -> None:
        """Show a validation, whose figures were logged."""
        self.standing = self.standing.validated(found, self.trainer.state.global_step)
        self._changed()

    def on_epoch_begin(self, args, state, control, **_):  # type: ignore[no-untyped-def]
        """Tell the order of examples which epoch begins."""
        self.trainer.batches.epoch = int(state.epoch or 0)

    def on_optimizer_step(self, args, state, control, **_):  # type: ignore[no-untyped-def]
        """Make sharded weights whole again."""
        if self.trainer.shards is not None:
            self.trainer.shards.gather()

    def on_step_end(self, args, state, control, **_):  # type: ignore[no-untyped-def]
        """Count the update; decide on validation, checkpoint and stopping."""
        self.trainer.meter.end()
        self.standing = replace(self.standing, updates=state.global_step)
        self._changed()
        if args.eval_strategy == "steps" and state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True
        # a signal reaches processes at different times, and all have to stop after the same update
        self.stopped = sum_over_processes([float(self.stopped)], self.trainer.policy.device)[0] > 0
        if self.stopped:
            control.should_save = control.should_training_stop = True
        control.should_log = control.should_log or control.should_save

    def on_epoch_end(self, args, state, control, **_):  # type: ignore[no-untyped-def]
        """Log what the epoch's last updates came to; validate no epoch that was stopped half-way."""
        control.should_log = control.should_log or control.should_save
        if self.stopped and state.epoch != int(state.epoch):  # the epoch is not over: nothing to validate yet
            control.should_evaluate = control.should_save = False

    def on_log(self, args, state, control, logs=None, **_):  # type: ignore[no-untyped-def]
        """Show the newest figures."""
        self.standing = self.standing.logged(logs or {}, state.global_step)
        self._changed()


@contextlib.contextmanager
def display(standing: Callable[[], Standing]) -> Iterator[Callable[[], None]]:
    """Show how a training stands; yields what is to be called when that has changed.

    Args:
        standing: returns how it stands.
    """
    if console.interactive():
        with console.live(TrainingPanel(standing)):
            yield lambda: None  # it looks by itself
        return
    with console.progress(standing().title, standing().total) as advance:
        shown = 0

        def changed() -> None:
            nonlocal shown
            now = standing()
            advance(now.updates - shown, note=now.note())
            shown = now.updates

        yield changed
