"""What happens between a trainer's updates: progress bar, the examples' epoch, and stopping when asked to."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from recalign import console
from recalign.training.processes import sum_over_processes

if TYPE_CHECKING:
    from recalign.training.trainer import RecalignTrainer


class Flow(TrainerCallback):
    """Progress bar, the examples' epoch, and stopping when asked to."""

    def __init__(self, trainer: RecalignTrainer) -> None:
        self.trainer = trainer
        self.stack = contextlib.ExitStack()
        self.advance: Callable[..., None] = lambda *_, **__: None
        self.note: dict[str, str] = {}
        self.stopped = False

    def stop(self) -> None:
        """Stop after this update, with a checkpoint."""
        if not self.stopped:
            console.say("stopping after this update, with a checkpoint; once more stops at once.")
        self.stopped = True

    def on_train_begin(self, args, state, control, **_):  # type: ignore[no-untyped-def]
        """Show the progress bar."""
        if state.is_world_process_zero:
            self.advance = self.stack.enter_context(console.progress(self.trainer.title, state.max_steps))
            self.advance(state.global_step)

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
        self.advance(1)
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
        """Show the newest figures beside the bar."""
        shown = ("loss", "reward", *(name for name in logs or {} if name.startswith("eval_")))
        self.note |= {name.replace("eval_", "valid "): f"{logs[name]:.4g}" for name in shown if name in (logs or {})}
        if "tokens_per_second" in (logs or {}):
            self.note["tokens/s"] = f"{logs['tokens_per_second']:,.0f}"
            self.note["MB"] = f"{logs['peak_memory_mb']:,.0f}"
        self.advance(0, note="  ".join(f"{name} {value}" for name, value in self.note.items()))


@contextlib.contextmanager
def on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Let the first Ctrl-C (or SIGTERM) call `stop`, the second one interrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handled = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in handled}

    def handle(number: int, _: Any) -> None:
        for each in handled:
            signal.signal(each, signal.default_int_handler)
        stop()

    for number in handled:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
