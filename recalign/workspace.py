"""Run folders: where commands write and find each other's output; writing so that nothing is left half-written."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from recalign import __version__
from recalign.errors import UserError

RUN_FILE = "run.json"


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
        yield temporary
        if temporary.is_dir() and path.is_dir():
            old = path.with_name(f".{path.name}.{os.getpid()}.old")
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old)
        else:
            temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"Writing {path} failed: {error.strerror or error}.",
            "Free some space or choose another --out; then run again.",
        ) from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        elif temporary.exists():
            temporary.unlink()


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
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @property
    def record(self) -> dict[str, Any]:
        """The content of run.json, or {} where there is none."""
        file = self.path / RUN_FILE
        return dict(read_json(file)) if file.is_file() else {}

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
        self._write(record)
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
            UserError: the folder holds something else, or an unfinished run without resume or overwrite.
        """
        wanted = content_hash({"command": command, "options": dict(options), "inputs": dict(inputs)})
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file, and the output is a folder.", "Choose another --out.")
        record = {} if overwrite else self.record
        if not self.record and self.path.is_dir() and any(self.path.iterdir()):
            raise UserError(f"{self.path} is not empty and is no run of recalign.", "Choose another --out.")
        if record and record.get("hash") != wanted:
            held = record.get("command")
            changes = _changes(record.get("options", {}), options) if held == command else [f"not of {command}"]
            raise UserError(
                f"{self.path} holds another run ({held}; {', '.join(changes[:4]) or 'its inputs changed'}).",
                "Choose another --out, or pass --overwrite.",
            )
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
        record = self.record
        self._write({**record, "status": "done", "finished": time.time(), "results": dict(results)})

    def interrupt(self) -> None:
        """Mark the run as interrupted; what was saved stays resumable."""
        self._write({**self.record, "status": "interrupted"})

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
