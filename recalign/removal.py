"""Deleting: nothing else in this package removes files. What is not provably ours and at rest is refused and named.

A run is ours where its run.json is the one that the decision to remove it was made on and, for a recipe's step, carries
the claim that the recipe noted before the step began. Of its content that is ours which run.json accounts for: `files`
lists what was there when the run ended, `makes` names what such a run writes while it is not over.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import Any, Literal

from pydantic import model_validator

from recalign.errors import UserError, advice_on
from recalign.locks import at_work
from recalign.reading import FileRecord, checked, read_object

RUN_FILE = "run.json"
CACHES = (".tries",)
"""Folders that later commands make in a finished run; they can be made again at any time."""
TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)\.(?P<kind>tmp|old|removed)")
"""Half-written files and folders, what is being replaced, and what is being removed, each with its process."""
KEEP = "Move or delete it yourself, or choose another --out."
SHOWN = 3


class RunRecord(FileRecord):
    """What is relied on in run.json."""

    command: str
    options: dict[str, Any]
    inputs: dict[str, Any]
    status: Literal["running", "done", "interrupted"]
    hash: str = ""
    started: float = 0.0
    finished: float = 0.0
    seed: int | None = None
    makes: list[str] = ["*"]
    files: list[str] = []
    results: dict[str, Any] = {}
    process: dict[str, float] = {}
    claim: dict[str, str] = {}
    lineage: dict[str, Any] = {}

    @model_validator(mode="after")
    def _has_results(self) -> RunRecord:
        if self.status == "done" and "results" not in self.model_fields_set:
            raise ValueError("a run that is done has results")
        return self


def remove_run(
    folder: Path, record: Mapping[str, Any], *, claim: Mapping[str, Any] | None = None, within: Path | None = None
) -> None:
    """Delete a run folder. The caller holds the lock of the folder that it lies in (`RunFolder.clear` does).

    The folder is set aside under a name of this process and looked at once more, so that what took its place meanwhile
    is put back; then what was looked at is deleted, run.json last: what a kill leaves can still be told to be ours.
    Arguments and errors: as `check_run`.
    """
    check_run(folder, record, claim=claim, within=within)
    folder = _absolute(folder)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.removed")
    with _told(folder):
        folder.rename(aside)
        try:
            content = _checked(aside, folder, record, claim)
        except UserError:
            aside.rename(folder)
            raise
        _delete(content)


def check_run(
    folder: Path, record: Mapping[str, Any], *, claim: Mapping[str, Any] | None = None, within: Path | None = None
) -> None:
    """Refuse what `remove_run` must not delete, touching nothing.

    Args:
        folder: the run's.
        record: run.json as it was when the decision was made.
        claim: what a recipe noted when it began the step (recipe, step and token); run.json must carry the same. None
            where a user asked for it: then runs at rest inside it may go too, unless recipes made them.
        within: the folder that it must lie in, not reached through symbolic links.

    Raises:
        UserError: it lies elsewhere, is a link, is another run, is at work, or holds what the run did not make.
    """
    if within is not None:
        _check_below(folder, within)
    absolute = _absolute(folder)
    if absolute in (here := Path.cwd(), *here.parents):
        raise UserError(f"{folder} is the folder that you are in, and would be removed.", "Change to another folder.")
    with _told(folder):
        _checked(absolute, folder, record, claim)


def discard(path: Path, inside: Path) -> None:
    """Delete a part of a run that this program wrote: a half-written file, a checkpoint, a cache. Missing is fine.

    Args:
        path: the file or folder.
        inside: the folder of the run, or of whatever `path` belongs to.

    Raises:
        UserError: it lies elsewhere, or is, or holds, a symbolic link or a run.
    """
    with _told(path), contextlib.suppress(FileNotFoundError):
        content = check_part(path, inside)
        if content is None:
            path.unlink()
        else:
            _delete(content)


def check_part(path: Path, inside: Path) -> _Content | None:
    """Refuse what `discard` must not delete, touching nothing. Arguments and errors: as there.

    Returns:
        What a folder holds; None for a file.
    """
    _check_below(path, inside)
    if not stat.S_ISDIR(path.lstat().st_mode):
        return None
    if not TEMPORARY.fullmatch(path.name) and _holds_run(path):
        raise UserError(f"{path} holds a run, and would be removed.", KEEP)
    content = _content(path)
    _refuse(path, [*content.odd, *content.runs])
    return content


def sweep(folder: Path) -> None:
    """Finish what killed processes began to remove under a folder's name; what does not prove to be ours stays."""
    import psutil

    folder = _absolute(folder)
    for path in folder.parent.iterdir() if folder.parent.is_dir() else ():
        match = TEMPORARY.fullmatch(path.name)
        if match and match["kind"] == "removed" and match["name"] == folder.name:
            own = int(match["pid"]) == os.getpid()
            with contextlib.suppress(UserError, OSError):
                if own or not psutil.pid_exists(int(match["pid"])):
                    _delete(_checked(path, path, _record(path), None) if any(path.iterdir()) else _content(path))


def made_files(folder: Path, makes: tuple[str, ...]) -> list[str]:
    """List the files of a run that ends, for its run.json: those whose first part fits a pattern, of no other run."""
    files = (path.relative_to(folder).as_posix() for path in _content(folder).files)
    return sorted(file for file in files if file != RUN_FILE and _fits(file, makes))


@dataclass
class _Content:
    """What a folder holds, without what the runs inside it hold; nothing is followed out of it."""

    folder: Path
    files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)  # the inner ones after the outer ones
    runs: list[Path] = field(default_factory=list)
    odd: list[Path] = field(default_factory=list)  # links, mounted disks, pipes: nothing that this program makes
    removed: list[_Content] = field(default_factory=list)  # runs inside that go too


def _content(folder: Path) -> _Content:
    content, waiting = _Content(folder), [folder]
    while waiting:
        for entry in sorted(os.scandir(waiting.pop()), key=lambda entry: entry.name):
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False) and not os.path.ismount(path):
                if _holds_run(path) and not TEMPORARY.fullmatch(path.name):
                    content.runs.append(path)
                else:
                    content.folders.append(path)
                    waiting.append(path)
            else:
                (content.files if entry.is_file(follow_symlinks=False) else content.odd).append(path)
    return content


def _checked(folder: Path, shown: Path, record: Mapping[str, Any], claim: Mapping[str, Any] | None) -> _Content:
    """Return what is to be deleted. Arguments: as `check_run`; `shown` is the folder's name in refusals."""
    if folder.is_symlink():
        raise UserError(f"{shown} is a symbolic link, and the folder behind it would be removed.", KEEP)
    if not record or _record(folder) != record:
        raise UserError(f"{shown} was changed by somebody else meanwhile.", "Look what it holds; then run again.")
    if claim is not None and (not claim or record.get("claim") != claim):
        theirs = record.get("claim")
        whose = f"step '{theirs.get('step')}' of recipe {theirs.get('recipe')}" if isinstance(theirs, dict) else ""
        raise UserError(
            f"{shown} holds a run that this recipe did not make "
            f"(recalign {record.get('command')}{', ' + whose if whose else ' by hand'}), and would be removed.",
            KEEP,
        )
    return _accounted(folder, shown, record, nested=claim is None)


def _accounted(folder: Path, shown: Path, record: Mapping[str, Any], *, nested: bool) -> _Content:
    """Refuse a run that is at work or holds what it did not make; `nested`: finished runs inside may go with it."""
    process = record.get("process")
    if record.get("status") == "running" and isinstance(process, Mapping) and at_work(process):
        raise UserError(
            f"Process {process['pid']} is at work in {shown} (recalign {record.get('command')}).",
            "Wait for it or stop it, or choose another --out.",
        )
    content, ours = _content(folder), _maker(record)
    foreign = [path for path in content.files if not ours(path.relative_to(folder))]
    _refuse(shown, [shown / path.relative_to(folder) for path in [*foreign, *content.odd]])
    for run in content.runs:
        inner, inside = _record(run), shown / run.relative_to(folder)
        if not nested or not inner or inner.get("claim"):
            made = f"a run of recalign {inner['command']}" if inner.get("command") else "a run"
            raise UserError(f"{shown} would be removed, and {inside} in it holds {made} that is not part of it.", KEEP)
        content.removed.append(_accounted(run, inside, inner, nested=True))
    return content


def _maker(record: Mapping[str, Any]) -> Callable[[PurePath], bool]:
    """Return what says whether a run made a file, by its path inside the run's folder."""
    listed, makes = record.get("files"), tuple(record.get("makes") or ("*",))

    def ours(file: PurePath) -> bool:
        known = file.as_posix() in listed if isinstance(listed, list) else _fits(file.as_posix(), makes)
        return known or str(file) == RUN_FILE or file.parts[0] in CACHES or any(map(TEMPORARY.fullmatch, file.parts))

    return ours


def _fits(file: str, makes: tuple[str, ...]) -> bool:
    return any(fnmatchcase(file.partition("/")[0], pattern) for pattern in makes)


def _delete(content: _Content) -> None:
    """Delete what was looked at and nothing else: a folder into which something came meanwhile stays."""
    for run in content.removed:
        _delete(run)
    last = content.folder / RUN_FILE
    for path in content.files:
        if path != last:
            path.unlink(missing_ok=True)
    for path in reversed(content.folders):
        path.rmdir()
    last.unlink(missing_ok=True)
    content.folder.rmdir()


def _refuse(folder: Path, foreign: list[Path]) -> None:
    if foreign:
        named = ", ".join(str(path) for path in foreign[:SHOWN]) + (", ..." if len(foreign) > SHOWN else "")
        raise UserError(f"{folder} would be removed, and holds what recalign did not put there: {named}.", KEEP)


def _check_below(path: Path, inside: Path) -> None:
    """Refuse a path that leaves a folder: upwards, or through a symbolic link."""
    parts = path.relative_to(inside).parts if path.is_relative_to(inside) else ()
    if not parts or ".." in parts:
        raise UserError(f"{path} would be removed, and does not lie in {inside}.", KEEP)
    place = inside
    for part in parts:
        place = place / part
        if place.is_symlink():
            raise UserError(f"{path} would be removed, and {place} is a symbolic link.", KEEP)


def _absolute(folder: Path) -> Path:
    """A path that has a name and does not depend on the current folder; a link at its end stays one."""
    return folder.resolve() if folder.name in ("", "..") else folder.parent.resolve() / folder.name


def _holds_run(folder: Path) -> bool:
    """Whether there is a run.json, in whatever case: some disks do not tell."""
    return any(name.casefold() == RUN_FILE for name in os.listdir(folder))


def _record(folder: Path) -> dict[str, Any]:
    """Return run.json, or {} where it is missing, broken or a link: then nothing proves whose the folder is."""
    file = folder / RUN_FILE
    try:
        return checked(read_object(file), RunRecord, file) if not file.is_symlink() else {}
    except UserError:
        return {}


@contextlib.contextmanager
def _told(path: Path) -> Any:
    """Say what the system would not do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise UserError(
                f"Something was written to {path} while it was being removed; it is in {error.filename}.", KEEP
            ) from error
        advice = advice_on(error) or "Mend that and run again."
        raise UserError(f"Removing {path} failed: {error.strerror or error}.", advice) from error
