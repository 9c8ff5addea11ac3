"""Run folders: where commands write and find each other's output; writing so that nothing is left half-written."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from recalign import __version__
from recalign.errors import ROOM, UserError, advice_on
from recalign.invocation import invoked
from recalign.locks import at_work, locked, this_process
from recalign.reading import checked, parse_json, read_object
from recalign.removal import (
    KEEP,
    RUN_FILE,
    TEMPORARY,
    RunRecord,
    check_part,
    check_run,
    discard,
    made_files,
    remove_run,
    sweep,
)

OTHER_FOLDER = "Choose another --out."
ABANDONED = 24 * 3600.0
"""Seconds after which a half-written file of a process that is not on this machine is nobody's."""
ENDS = 1 << 20
"""Bytes that count at each end of a large file."""
CLAIM = "RECALIGN_CLAIM"
"""Environment variable by which a recipe tells the command that it runs, in whatever process, what to claim and how."""


def home() -> Path:
    """The workspace: RECALIGN_HOME, or `runs` in the current folder."""
    return Path(os.environ.get("RECALIGN_HOME", "runs"))


@contextlib.contextmanager
def atomic(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on failure.

    Works for files and folders.

    Args:
        path: where the result goes.
        replace: put a folder in the place of one that exists; else only in that of an empty one.

    Raises:
        UserError: the disk is full, the place cannot be written, or what is there must not be removed (a link, a run);
            what was there before is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(path)
        yield temporary
        if replace and temporary.is_dir() and path.is_dir():
            _exchange(temporary, path)
        else:
            temporary.replace(path)
    except OSError as error:
        raise UserError(f"Writing {path} failed: {error.strerror or error}.", advice_on(error) or ROOM) from error
    finally:
        with contextlib.suppress(UserError):  # it would hide why the writing failed; the next one clears it
            discard(temporary, inside=path.parent)


def _exchange(new: Path, path: Path) -> None:
    """Put a folder in the place of another, and delete that one."""
    check_part(path, inside=path.parent)
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    path.rename(old)
    try:
        new.rename(path)
    except OSError:
        old.rename(path)
        raise
    discard(old, inside=path.parent)


def _clear_leftovers(path: Path) -> None:
    """Remove what killed processes left half-written beside a path; another machine's may still be at work on it.

    A folder that one of them had set aside, and put nothing in its place yet, comes back.
    """
    import psutil

    for file in path.parent.iterdir():
        left = TEMPORARY.fullmatch(file.name)
        if left and left["name"] == path.name and left["kind"] != "removed" and not psutil.pid_exists(int(left["pid"])):
            with contextlib.suppress(OSError, UserError):  # somebody else may remove it too
                if left["kind"] == "old" and not path.exists():
                    file.rename(path)
                elif time.time() - file.lstat().st_mtime > ABANDONED:
                    discard(file, inside=path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, with sorted keys and no NaN."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=False, default=str) + "\n", "utf-8")


@contextlib.contextmanager
def claiming(folder: Path, claim: Mapping[str, Any]) -> Iterator[None]:
    """Let the run that begins in this folder meanwhile, here or in a process started here, record the claim.

    Args:
        folder: the run's.
        claim: the recipe, the step and a token that the recipe has noted already.
    """
    before = os.environ.get(CLAIM)
    os.environ[CLAIM] = json.dumps({"folder": str(Path(folder).resolve()), "claim": dict(claim)})
    try:
        yield
    finally:
        if before is None:
            del os.environ[CLAIM]
        else:
            os.environ[CLAIM] = before


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
            digest.update(os.fsencode(file.relative_to(path)))
            digest.update(f"\x1f{facts.st_mtime_ns if large else 0}\x1f{facts.st_size}".encode())
            digest.update(b"" if large else file.read_bytes())
    return digest.hexdigest()[:16]


def file_ends(file: Path) -> bytes:
    """Return what tells a large file from others without reading it: its name, size and ends."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        first = stream.read(ENDS)
        stream.seek(max(0, size - ENDS))
        return f"{file.name} {size}".encode() + first + stream.read(ENDS)


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
        file, advice = self.path / RUN_FILE, f"Restore it, or move {self.path} away; what made it can then run again."
        record = read_object(file, advice) if file.is_file() else {}
        return checked(record, RunRecord, file, advice) if record else {}

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
        makes: tuple[str, ...] = ("*",),
        facts: Mapping[str, Any] | None = None,
    ) -> str:
        """Claim the folder for a run; say whether there is something to do. Arguments, result and errors: as `plan`.

        `facts` are stated in run.json besides.

        Of two processes that begin at the same moment, one gets the folder and the other is refused.
        """
        with locked(self.path.parent):
            sweep(self.path)
            state, record = self.plan(command, options, inputs, resume=resume, overwrite=overwrite, makes=makes)
            if state == "done":
                return state
            held = self.record
            if state == "fresh" and held:
                remove_run(self.path, held)
            self._write({**record, **(facts or {}), "process": this_process()})
        return state

    @contextlib.contextmanager
    def at_once(self, record: Mapping[str, Any], held: Mapping[str, Any]) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Write a run that appears in the folder as a whole when it is over.

        Args:
            record: what run.json is to hold, as `plan` says.
            held: what it held when that was planned; this run is removed when the new one is complete.

        Yields:
            A temporary folder to write to, and the table of results to fill.

        Raises:
            UserError: as `atomic`; the folder was changed by somebody else meanwhile.
        """
        results: dict[str, Any] = {}
        with atomic(self.path, replace=False) as folder:
            folder.mkdir(parents=True)
            yield folder, results
            files = made_files(folder, ("*",))
            done = {"status": "done", "finished": time.time(), "results": results, "files": files}
            write_json(folder / RUN_FILE, {**record, **done})
            sweep(self.path)
            if held:
                self.clear(held)

    def clear(
        self, record: Mapping[str, Any], *, claim: Mapping[str, Any] | None = None, within: Path | None = None
    ) -> None:
        """Delete the folder with the run in it. Arguments and errors: as `removal.check_run`."""
        with locked(self.path.parent):
            remove_run(self.path, record, claim=claim, within=within)

    def plan(
        self,
        command: str,
        options: Mapping[str, Any],
        inputs: Mapping[str, str],
        *,
        resume: bool = False,
        overwrite: bool = False,
        makes: tuple[str, ...] = ("*",),
    ) -> tuple[str, dict[str, Any]]:
        """Say what `begin` would do, touching nothing.

        Args:
            command: the subcommand's name.
            options: what determines the output (not --quiet, --json or --out).
            inputs: name -> content hash of what the run reads.
            resume: go on with an unfinished run of the same hash.
            overwrite: delete what is there.
            makes: patterns of the names that the run writes in its folder; a file of another name is the user's and is
                never removed with the run.

        Returns:
            "fresh" (an empty folder), "resume" (an unfinished run of the same hash) or "done" (finished, same hash),
            and the record that run.json is to hold.

        Raises:
            UserError: the folder holds something else, an unfinished run without resume or overwrite, a run at which
                another process is at work, or, with overwrite, what this run reads or what recalign did not put there.
        """
        wanted = content_hash({"command": command, "options": dict(options), "inputs": dict(inputs)})
        held = self.usable()
        record = held
        if overwrite:
            self._check_expendable(held, command, options)
            record = {}
        elif not self.saved_anything:
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
        if held and not record:
            check_run(self.path, held)
        return "resume" if record else "fresh", {
            "command": command,
            "options": dict(options),
            "inputs": dict(inputs),
            "hash": wanted,
            "version": __version__,
            "status": "running",
            "started": record.get("started", time.time()),
            "makes": list(makes),
            **self._claim(record),
            **invoked(),
        }

    def usable(self) -> dict[str, Any]:
        """Return the content of run.json, as `record` does, of a folder in which a run can begin or go on.

        Raises:
            UserError: it is a file, holds something that is no run, or another process is at work in it.
        """
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
        return held

    def _claim(self, resumed: Mapping[str, Any]) -> dict[str, Any]:
        """Return the claim of the recipe that runs this command for this folder; a run that goes on keeps its own."""
        if resumed:
            return {"claim": resumed["claim"]} if "claim" in resumed else {}
        told = parse_json(os.environ.get(CLAIM, "{}"), CLAIM)
        return {"claim": told["claim"]} if told and told["folder"] == str(self.path.resolve()) else {}

    @property
    def claimed(self) -> bool:
        """Whether a recipe runs the command for this folder."""
        return bool(self._claim({}))

    def finish(self, results: Mapping[str, Any]) -> None:
        """Mark the run as done and store its results."""
        self._close(status="done", finished=time.time(), results=dict(results))

    def interrupt(self) -> None:
        """Mark the run as interrupted; what was saved stays resumable."""
        self._close(status="interrupted")

    def _close(self, **facts: Any) -> None:
        """Note how the run ended, and which files it leaves."""
        record = {key: value for key, value in self.record.items() if key != "process"}
        files = made_files(self.path, tuple(record.get("makes", ("*",))))
        self._write(record | facts | {"files": files})

    @property
    def saved_anything(self) -> bool:
        """Whether there is something to lose: a finished run, or a file beside run.json that is not empty."""
        files = (file for file in self.path.rglob("*") if file.name != RUN_FILE and file.is_file())
        return self.done or any(file.stat().st_size for file in files)

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
        hint = KEEP if self._claim({}) else "Choose another --out, or pass --overwrite."  # a recipe takes none
        return UserError(f"{self.path} holds another run ({theirs}; {changes}).", hint)

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
