"""Run folders: where commands write and find each other's output; writing so that nothing is left half-written."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from recalign import __version__
from recalign.errors import ROOM, UserError, advice_on

RUN_FILE = "run.json"
OTHER_FOLDER = "Choose another --out."
ABANDONED = 24 * 3600.0
"""Seconds after which a half-written file of a process that is not on this machine is nobody's."""
CLOCK_STEP = 1.0
"""Seconds by which two readings of a process's birth may differ where the clock is set meanwhile."""


def home() -> Path:
    """The workspace: RECALIGN_HOME, or `runs` in the current folder."""
    return Path(os.environ.get("RECALIGN_HOME", "runs"))


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on failure.

    Works for files and folders (a folder that exists is replaced).

    Raises:
        UserError: the disk is full or the place cannot be written; what was there before is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(path)
        yield temporary
        if temporary.is_dir() and path.is_dir():
            old = path.with_name(f".{path.name}.{os.getpid()}.old")
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old)
        else:
            temporary.replace(path)
    except OSError as error:
        raise UserError(f"Writing {path} failed: {error.strerror or error}.", advice_on(error) or ROOM) from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        elif temporary.exists():
            temporary.unlink()


def _clear_leftovers(path: Path) -> None:
    """Remove what killed processes left half-written beside a path; another machine's may still be at work on it."""
    import psutil

    for file in path.parent.iterdir():
        left = re.fullmatch(rf"\.{re.escape(path.name)}\.(\d+)\.tmp", file.name)
        if left and not psutil.pid_exists(int(left[1])):
            with contextlib.suppress(OSError):  # somebody else may remove it too
                if time.time() - file.stat().st_mtime > ABANDONED:
                    shutil.rmtree(file) if file.is_dir() else file.unlink()


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, with sorted keys and no NaN."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=False, default=str) + "\n", "utf-8")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        UserError: the file is missing or broken.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable JSON: {error}.", "It may be half-written; make it again.") from None


def this_process() -> dict[str, float]:
    """Return what tells this process from all others, those of the same number before and after it included."""
    import psutil

    return {"pid": os.getpid(), "born": psutil.Process().create_time()}


def at_work(process: Mapping[str, float]) -> bool:
    """Whether another process than this one, as `this_process` described it there, still runs."""
    import psutil

    try:
        found = psutil.Process(int(process["pid"]))
        same = abs(found.create_time() - process["born"]) < CLOCK_STEP
        return same and found.pid != os.getpid() and found.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, KeyError):
        return False


def content_hash(value: Any) -> str:
    """Short hash of a JSON-serialisable value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def file_hash(path: Path) -> str:
    """Short hash of what a file or a folder holds, so that a run knows whether its input changed.

    Files above 64 MiB (weights) count by size and time of change, all others by content; hidden ones (caches) do not.
    """
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
        if file.is_file() and not hidden:
            facts = file.stat()
            large = facts.st_size > 2**26
            digest.update(
                f"{file.relative_to(path)}\x1f{facts.st_mtime_ns if large else 0}\x1f{facts.st_size}".encode()
            )
            digest.update(b"" if large else file.read_bytes())
    return digest.hexdigest()[:16]


class RunFolder:
    """One command's output folder with its `run.json`: command, options, inputs, status, results.

    `status` is `running` while at work, `done` at the end, `interrupted` after Ctrl-C. `hash` identifies what was asked
    for (command, options, inputs' hashes): a later command, or the same one, knows whether the output still fits.
    `process` is the one at work, which no second one disturbs.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @property
    def record(self) -> dict[str, Any]:
        """The content of run.json, or {} where there is none.

        Raises:
            UserError: the file is broken.
        """
        file = self.path / RUN_FILE
        try:
            return dict(read_json(file)) if file.is_file() else {}
        except UserError as error:
            raise UserError(error.what, f"Delete {self.path}, or choose another --out.") from None

    @property
    def done(self) -> bool:
        """Whether the run finished."""
        return self.record.get("status") == "done"

    def begin(
        self,
        command: str,
        options: Mapping[str, Any],
        inputs: Mapping[str, str],
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> str:
        """Claim the folder for a run; say whether there is something to do. Arguments, result and errors: as `plan`."""
        state, record = self.plan(command, options, inputs, resume=resume, overwrite=overwrite)
        if state == "done":
            return state
        if state == "fresh" and self.record:
            shutil.rmtree(self.path)
        self._write({**record, "process": this_process()})
        return state

    def plan(
        self,
        command: str,
        options: Mapping[str, Any],
        inputs: Mapping[str, str],
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> tuple[str, dict[str, Any]]:
        """Say what `begin` would do, touching nothing.

        Args:
            command: the subcommand's name.
            options: what determines the output (not --quiet, --json or --out).
            inputs: name -> content hash of what the run reads.
            resume: go on with an unfinished run of the same hash.
            overwrite: delete what is there.

        Returns:
            "fresh" (an empty folder), "resume" (an unfinished run of the same hash) or "done" (finished, same hash),
            and the record that run.json is to hold.

        Raises:
            UserError: the folder holds something else, an unfinished run without resume or overwrite, a run at which
                another process is at work, or, with overwrite, what this run reads.
        """
        wanted = content_hash({"command": command, "options": dict(options), "inputs": dict(inputs)})
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file, and the output is a folder.", OTHER_FOLDER)
        held = self.record
        if not held and self.path.is_dir() and any(self.path.iterdir()):
            raise UserError(f"{self.path} is not empty and is no run of recalign.", OTHER_FOLDER)
        if held.get("status") == "running" and at_work(held.get("process", {})):
            raise UserError(
                f"Process {held['process']['pid']} is at work in {self.path} (recalign {held['command']}).",
                "Wait for it or stop it, or choose another --out.",
            )
        record = held
        if overwrite:
            self._check_expendable(held, command, options)
            record = {}
        elif not self._saved_anything(held):
            record = {}
        if record and record.get("hash") != wanted:
            raise self._another(record, command, options)
        if record.get("status") == "done":
            return "done", record
        if record and not resume:
            raise UserError(
                f"{self.path} holds an unfinished run.",
                "Pass --resume to go on with it, or --overwrite to start afresh.",
            )
        return "resume" if record else "fresh", {
            "command": command,
            "options": dict(options),
            "inputs": dict(inputs),
            "hash": wanted,
            "version": __version__,
            "status": "running",
            "started": record.get("started", time.time()),
        }

    def finish(self, results: Mapping[str, Any]) -> None:
        """Mark the run as done and store its results."""
        self._close(status="done", finished=time.time(), results=dict(results))

    def interrupt(self) -> None:
        """Mark the run as interrupted; what was saved stays resumable."""
        self._close(status="interrupted")

    def _close(self, **facts: Any) -> None:
        """Note how the run ended."""
        self._write({key: value for key, value in self.record.items() if key != "process"} | facts)

    def _saved_anything(self, held: Mapping[str, Any]) -> bool:
        """Whether there is something to lose: a finished run, or a file beside run.json that is not empty."""
        files = (file for file in self.path.rglob("*") if file.name != RUN_FILE and file.is_file())
        return held.get("status") == "done" or any(file.stat().st_size for file in files)

    def _check_expendable(self, held: Mapping[str, Any], command: str, options: Mapping[str, Any]) -> None:
        """Refuse to delete a run of another command, or what this one reads (the model that it starts from)."""
        if held and held.get("command") != command:
            raise self._another(held, command, options)
        for name, value in _flat(options).items():
            read = Path(value).resolve() if isinstance(value, str) and os.path.exists(value) else None
            if held and read is not None and self.path.resolve() in (read, *read.parents):
                raise UserError(f"--overwrite would delete {value}, which this run reads ({name}).", OTHER_FOLDER)

    def _another(self, held: Mapping[str, Any], command: str, options: Mapping[str, Any]) -> UserError:
        """Say what the folder holds instead of what is asked for."""
        theirs = held.get("command")
        if theirs != command:
            return UserError(f"{self.path} holds another run ({theirs}; not of {command}).", OTHER_FOLDER)
        changes = ", ".join(_changes(held.get("options", {}), options)[:4]) or "its inputs changed"
        return UserError(
            f"{self.path} holds another run ({theirs}; {changes}).", "Choose another --out, or pass --overwrite."
        )

    def _write(self, record: Mapping[str, Any]) -> None:
        write_json(self.path / RUN_FILE, record)


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Say option by option what differs, inside tables too: `params.tau: 0.3 -> 0.5`."""
    before, after = _flat(old), _flat(json.loads(json.dumps(dict(new), default=str)))
    keys = [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]
    return [f"{key}: {before.get(key)!r} -> {after.get(key)!r}" for key in keys]


def _flat(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in options.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
