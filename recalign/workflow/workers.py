"""Worker processes: each takes steps, one after the other, over its standard input and answers over its output."""

from __future__ import annotations

import _thread
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recalign.errors import UserError
from recalign.workflow.signatures import signature_of
from recalign.workspace import RunFolder, claiming

if TYPE_CHECKING:
    from recalign.workflow.plan import RecipeStep


class Fault(RuntimeError):
    """A fault of ours in a worker, with its traceback as text."""


class Interrupted(RuntimeError):
    """The step in a worker was interrupted."""


class Worker:
    """One process that runs steps.

    Args:
        environment: its environment variables.
        logs: folder of the steps' logs, a file a step: what a command says on stderr.
    """

    def __init__(self, environment: Mapping[str, str], logs: Path) -> None:
        self._logs = logs
        # A session of its own: Ctrl-C in the terminal reaches the parent only, which then interrupts each worker once.
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from recalign.workflow.workers import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(environment),
            start_new_session=True,
        )
        self._thread: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        """Whether the process can take another step."""
        return self._process.poll() is None

    def submit(
        self, step: RecipeStep, more: list[str], claim: Mapping[str, Any], answer: Callable[..., None], started: float
    ) -> None:
        """Hand over a step; `answer(worker, step, started, error)` is called from a thread when it ends."""
        log = self._logs / f"{step.id.replace('/', '.')}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        job = {
            "command": step.command,
            "arguments": [*step.arguments, *more],
            "claim": dict(claim),
            "id": step.id,
            "log": str(log),
        }

        def converse() -> None:
            answer(self, step, started, self._ask(job, log))

        self._thread = threading.Thread(target=converse, daemon=True)
        self._thread.start()

    def interrupt(self) -> None:
        """Interrupt the step at work, which saves what can be resumed."""
        if self.alive and self._thread is not None and self._thread.is_alive():
            self._process.send_signal(signal.SIGINT)

    def close(self) -> None:
        """Wait for the step at work, then end the process."""
        if self._thread is not None:
            self._thread.join()
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):  # a step that it was handed and did not live to read
                self._process.stdin.close()
        self._process.wait()

    def _ask(self, job: dict[str, Any], log: Path) -> Exception | None:
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            return UserError(
                f"its process ended without an answer (exit code {code}; -9: killed, as when memory runs out).",
                f"See {log}; fewer --jobs need less memory.",
            )
        reply = json.loads(line)
        if "user" in reply:
            return UserError(*reply["user"])
        if "fault" in reply:
            return Fault(f"{job['id']} failed (log: {log}):\n{reply['fault']}")
        return Interrupted(job["id"]) if "interrupted" in reply else None


def run_command(command: str, arguments: Sequence[str], claim: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Run one command as the command line would: in this process, but for one that starts several of its own.

    Args:
        command: the subcommand.
        arguments: what one would type after it, --out included.
        claim: what the run is to record in its output folder, see `workspace.claiming`.
        where: what asked for it, for error texts.
    """
    signature = signature_of(command)
    options = signature.parse(arguments, where)
    with claiming(options["out"], claim):
        if options.get("num_processes", 1) == 1:
            return signature.function(**options)
        done = subprocess.run([sys.executable, "-m", "recalign", command, *arguments], check=False)
    if done.returncode == 130:
        raise KeyboardInterrupt
    if done.returncode:
        raise UserError(f"its processes ended with exit code {done.returncode}.", "Their messages are above.")
    return dict(RunFolder(options["out"]).record.get("results", {}))


def serve() -> None:
    """Run the steps that arrive on stdin until it closes; answer each with one line of JSON."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # answered as Ctrl-C is
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a command prints must not get between the answers
    jobs: queue.Queue[dict[str, Any] | None] = queue.Queue()
    busy = threading.Event()

    def listen() -> None:
        for line in sys.stdin:
            jobs.put(json.loads(line))
        if busy.is_set():  # the parent is gone: save what can be resumed, for nobody waits for the answer
            _thread.interrupt_main()
        jobs.put(None)

    threading.Thread(target=listen, daemon=True).start()
    while (job := jobs.get()) is not None:
        busy.set()
        with open(job["log"], "a", encoding="utf-8") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        reply = _run(job)
        busy.clear()
        with contextlib.suppress(BrokenPipeError):
            answers.write(json.dumps(reply) + "\n")
            answers.flush()


def _run(job: dict[str, Any]) -> dict[str, Any]:
    try:
        run_command(job["command"], job["arguments"], job["claim"], f"Step '{job['id']}'")
        sys.stdout.flush()
    except UserError as error:
        return {"user": [error.what, error.hint]}
    except KeyboardInterrupt:
        return {"interrupted": True}
    except Exception:
        return {"fault": traceback.format_exc()}
    return {"done": True}
