"""Run the steps of a recipe: skip what is done, go on with what was cut off, in this process or in several."""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recalign import console
from recalign.errors import UserError
from recalign.locks import refuse_if_taken, take
from recalign.reading import FileRecord, checked, read_object
from recalign.removal import check_run, discard
from recalign.workflow.plan import RecipeStep
from recalign.workflow.signatures import signature_of
from recalign.workflow.workers import Interrupted, Worker, run_command
from recalign.workspace import RunFolder, write_json

STATE_FILE = "recipe.json"
LOCK_FILE = "recipe.lock"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS")


@dataclass(frozen=True)
class Status:
    """Whether a step has to run, and why: `done`, `new`, `changed`, `unfinished`, or `waits` (a step it reads runs)."""

    state: str
    reason: str = ""

    @property
    def done(self) -> bool:
        """Whether there is nothing to do."""
        return self.state == "done"


class Noted(FileRecord):
    """What is relied on in the record of a step."""

    key: str
    options: dict[str, Any]
    read: dict[str, float | None]
    seconds: float = 0.0
    hash: str | None = None
    claim: dict[str, str] = {}


class Ledger:
    """What is known of earlier runs of a recipe: `recipe.json` in its folder, a record a step.

    A record holds the key that the step was asked for with, its seconds, when the steps that it read had finished, the
    hash of the run that it left, and the claim that its command was given: what run.json of the step's folder carries
    where this recipe made it.

    Raises:
        UserError: the file is broken.
    """

    def __init__(self, root: Path) -> None:
        self._file = root / STATE_FILE
        advice = "Delete it: what the steps' folders hold is then kept, but not removed when the recipe changes."
        self._records = read_object(self._file, advice) if self._file.is_file() else {}
        self._lock = threading.Lock()
        for identity, record in self._records.items():
            where = f"{self._file} is not what `recalign run` wrote: {identity}"
            checked(record if isinstance(record, dict) else {}, Noted, where, advice)

    def record(self, step: RecipeStep) -> dict[str, Any]:
        """What was noted of a step, or {}."""
        return dict(self._records.get(step.id, {}))

    def claim(self, step: RecipeStep) -> dict[str, Any]:
        """What run.json of the step's folder carries if this recipe made it; {} where nothing was noted for it."""
        claim = self.record(step).get("claim")
        if isinstance(claim, dict) and claim.get("step") == step.id and claim.get("token"):
            return claim
        return {}

    def note(self, step: RecipeStep, **facts: Any) -> None:
        """Note facts on a step and write them down."""
        with self._lock:
            self._records[step.id] = facts
            write_json(self._file, self._records)

    def status(self, step: RecipeStep, needs: Sequence[RecipeStep], statuses: dict[str, Status]) -> Status:
        """Compare what is asked for with what is there."""
        record, run = self.record(step), RunFolder(step.out).record
        if not run:
            return Status("new")
        if record and record["key"] != step.key:
            return Status("changed", _difference(record["options"], step))
        if run.get("status") != "done" or "seconds" not in record:
            return Status("unfinished")
        if run.get("hash") != record.get("hash"):
            return Status("unfinished", "its folder holds another run")
        behind = dict.fromkeys(need.name for need in needs if not statuses[need.id].done)
        if behind:
            return Status("waits", f"reads {', '.join(behind)}")
        made_again = record["read"] != finished(needs)
        return Status("changed", "what it reads was made again") if made_again else Status("done")


def finished(steps: Sequence[RecipeStep]) -> dict[str, Any]:
    """When each step's run ended, by id: tells whether it was made again since."""
    return {step.id: RunFolder(step.out).record.get("finished") for step in steps}


def survey(steps: Sequence[RecipeStep], root: Path) -> dict[str, Status]:
    """Say of each step whether it has to run, touching nothing.

    Args:
        steps: the plan.
        root: the recipe's folder.
    """
    ledger, by_id = Ledger(root), {step.id: step for step in steps}
    statuses: dict[str, Status] = {}
    for step in steps:
        statuses[step.id] = ledger.status(step, [by_id[need] for need in step.needs], statuses)
    return statuses


def check(steps: Sequence[RecipeStep], root: Path) -> dict[str, Status]:
    """Refuse what `execute` would refuse, touching nothing; say of each step whether it has to run.

    Args:
        steps: the plan.
        root: the recipe's folder.

    Raises:
        UserError: the folder is a file or another process runs a recipe in it; a step's folder is outdated and not this
            recipe's to remove, holds no run of recalign, or is at work.
    """
    if root.exists() and not root.is_dir():
        raise UserError(f"{root} is a file, and the recipe's output is a folder.", "Choose another --out.")
    refuse_if_taken(root / LOCK_FILE, f"running a recipe in {root}")
    statuses, ledger = survey(steps, root), Ledger(root)
    for step in steps:
        if not statuses[step.id].done:
            _check_folder(step, ledger, root)
    return statuses


def _check_folder(step: RecipeStep, ledger: Ledger, root: Path) -> None:
    """Refuse to start where a step's folder cannot be written: hours before its turn comes."""
    folder, record = RunFolder(step.out), ledger.record(step)
    changed = ""
    try:
        run = folder.usable()
        if record and run and record["key"] != step.key:
            changed = " changed"
            check_run(step.out, run, claim=ledger.claim(step), within=root)
    except UserError as error:
        raise UserError(f"Step '{step.id}'{changed}: {error.what}", error.hint) from None


def execute(steps: Sequence[RecipeStep], root: Path, *, jobs: int = 1, keep_going: bool = False) -> dict[str, str]:
    """Run what has to be run.

    Args:
        steps: the plan, every step after those that it needs.
        root: the recipe's folder; gets `recipe.json` and, with several jobs, a log a step under `logs/`.
        jobs: how many steps at a time; above 1 each runs in a process of its own, with its share of the cores.
        keep_going: after a failure, run what does not depend on it.

    Returns:
        Id of a step -> "done" (was done before), "ran", "failed" or "blocked" (a step that it needs failed).

    Raises:
        UserError: a step's, with the step's name; with `keep_going` only at the end.
        KeyboardInterrupt: Ctrl-C; a second call goes on from there.
    """
    if not keep_going:
        check(steps, root)
    with _lock(root):
        return _Run(steps, root, keep_going).all(jobs)


class _Run:
    def __init__(self, steps: Sequence[RecipeStep], root: Path, keep_going: bool) -> None:
        self.root, self.keep_going = root, keep_going
        self.ledger = Ledger(root)
        self.by_id = {step.id: step for step in steps}
        statuses = survey(steps, root)
        self.outcome = {step.id: "done" for step in steps if statuses[step.id].done}
        self.waiting = [step for step in steps if not statuses[step.id].done]
        self.total = len(self.waiting)
        self.errors: list[Exception] = []

    def all(self, jobs: int) -> dict[str, str]:
        if self.waiting:
            with _workers(min(jobs, self.total), self.root / "logs") as workers:
                if workers:
                    self._in_parallel(workers)
                else:
                    self._in_turn()
        if self.errors:
            failed = [identity for identity, outcome in self.outcome.items() if outcome == "failed"]
            first = self.errors[0]
            if self.keep_going and isinstance(first, UserError):
                raise UserError(f"{len(failed)} steps failed: {', '.join(failed)}. The first: {first.what}", first.hint)
            raise first
        return self.outcome

    def _in_turn(self) -> None:
        while (step := self._next()) is not None:
            try:
                started = self._start(step)
                console.say(f"[{len(self.outcome) + 1}/{len(self.by_id)}] {step.id}")
                arguments, claim = [*step.arguments, *self._resume(step)], self.ledger.claim(step)
                run_command(step.command, arguments, claim, f"Step '{step.id}'")
            except UserError as error:
                self._fail(step, error)
            else:
                self._finish(step, started)

    def _in_parallel(self, workers: list[Worker]) -> None:
        events: queue.Queue[tuple[Worker, RecipeStep, float, Exception | None]] = queue.Queue()
        idle, busy = list(workers), 0
        with console.progress("steps", self.total) as advance:
            while True:
                while idle and (step := self._next()) is not None:
                    try:
                        started = self._start(step)
                    except UserError as refusal:
                        self._fail(step, refusal)
                        continue
                    claim = self.ledger.claim(step)
                    idle.pop().submit(step, self._resume(step), claim, lambda *event: events.put(event), started)
                    busy += 1
                if not busy:
                    return
                worker, step, started, error = events.get()
                busy -= 1
                if isinstance(error, Interrupted):
                    raise KeyboardInterrupt
                if error is None:
                    self._finish(step, started)
                else:
                    self._fail(step, error)
                if worker.alive:
                    idle.append(worker)
                advance(1, f"{step.id} {'failed' if error else 'done'}")

    def _next(self) -> RecipeStep | None:
        """Take a step whose needs are met, if there is one; what depends on a failure is blocked."""
        if self.errors and not self.keep_going:
            return None
        for step in list(self.waiting):
            needs = [self.outcome.get(need) for need in step.needs]
            if "failed" in needs or "blocked" in needs:
                self.waiting.remove(step)
                self.outcome[step.id] = "blocked"
            elif None not in needs:
                self.waiting.remove(step)
                return step
        return None

    def _start(self, step: RecipeStep) -> float:
        """Clear the folder of what this recipe made and is outdated; note what is asked for and the claim.

        The claim is noted before the command writes it into run.json: whenever this is killed, either both agree
        or the folder is not this recipe's to remove.
        """
        folder, record = RunFolder(step.out), self.ledger.record(step)
        run, read = folder.record, finished([self.by_id[need] for need in step.needs])
        claim = self.ledger.claim(step)
        ours = bool(claim) and run.get("claim") == claim
        outdated = bool(record) and (record["key"] != step.key or record["read"] != read)
        half = run.get("status") != "done" and not signature_of(step.command).takes("resume")
        if run and (outdated or (half and ours)):
            folder.clear(run, claim=claim, within=self.root)
            ours = False
        if not ours:
            claim = {"recipe": self.root.resolve().name, "step": step.id, "token": secrets.token_hex(16)}
        self.ledger.note(step, key=step.key, options=step.options, read=read, claim=claim)
        return time.perf_counter()

    def _resume(self, step: RecipeStep) -> list[str]:
        return ["--resume"] if signature_of(step.command).takes("resume") else []

    def _finish(self, step: RecipeStep, started: float) -> None:
        self.outcome[step.id] = "ran"
        seconds = time.perf_counter() - started
        found = RunFolder(step.out).record.get("hash")
        self.ledger.note(step, **self.ledger.record(step), seconds=round(seconds, 3), hash=found)

    def _fail(self, step: RecipeStep, error: Exception) -> None:
        self.outcome[step.id] = "failed"
        if isinstance(error, UserError):
            error = UserError(f"Step '{step.id}': {error.what}", error.hint)
        self.errors.append(error)
        if self.keep_going:
            console.warn(f"{error}")


@contextlib.contextmanager
def _workers(jobs: int, logs: Path) -> Iterator[list[Worker]]:
    """Start worker processes, each with its share of the cores; none for a single job."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    share = str(max(1, cores // jobs))
    environment = {**dict.fromkeys(THREADS, share), **os.environ}
    workers = [Worker(environment, logs) for _ in range(jobs)] if jobs > 1 else []
    try:
        yield workers
    except KeyboardInterrupt:
        for worker in workers:
            worker.interrupt()
        raise
    finally:
        for worker in workers:
            worker.close()


@contextlib.contextmanager
def _lock(root: Path) -> Iterator[None]:
    """Refuse to run a recipe twice at the same time in the same folder; a dead process's lock is taken over."""
    root.mkdir(parents=True, exist_ok=True)
    descriptor = take(root / LOCK_FILE, f"running a recipe in {root}")
    try:
        yield
    finally:
        discard(root / LOCK_FILE, inside=root)
        os.close(descriptor)


def _difference(old: dict[str, Any], step: RecipeStep) -> str:
    changed = [key for key in sorted({*old, *step.options}) if old.get(key) != step.options.get(key)]
    return ", ".join(f"{key}: {old.get(key)!r} -> {step.options.get(key)!r}" for key in changed[:3]) or "its inputs"
