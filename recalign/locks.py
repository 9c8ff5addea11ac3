"""Which process is at work, and locks that two processes cannot hold at once and that die with their holder."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from recalign.errors import ROOM, UserError, advice_on
from recalign.reading import parse_json

NO_LINK = getattr(os, "O_NOFOLLOW", 0)
YOUNG = 60.0
"""Seconds in which a lock's file that names nobody is one whose maker is about to write its name."""
CLOCK_STEP = 1.0
"""Seconds by which two readings of a process's birth may differ where the clock is set meanwhile."""


def this_process() -> dict[str, float]:
    """Return what tells this process from all others, those of the same number before and after it included."""
    import psutil

    return {"pid": os.getpid(), "born": psutil.Process().create_time()}


def at_work(process: Mapping[str, Any]) -> bool:
    """Whether another process than this one, as `this_process` described it there, still runs."""
    import psutil

    try:
        found = psutil.Process(int(process["pid"]))
        same = bool(abs(found.create_time() - process["born"]) < CLOCK_STEP)
        return same and found.pid != os.getpid() and found.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder where it is missing, and keep other processes from claiming or removing runs in it meanwhile.

    Raises:
        UserError: the folder cannot be made or opened.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY) if sys.platform != "win32" else None
    except OSError as error:
        raise UserError(f"Writing in {folder} failed: {error.strerror or error}.", advice_on(error) or ROOM) from error
    if descriptor is None:  # Windows opens no folders; there, two claims at the same moment are not told apart
        yield
        return
    try:
        _lock(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)


def take(file: Path, doing: str) -> int:
    """Take a lock file for as long as the returned descriptor is open; that of a process that is gone is taken over.

    Args:
        file: the lock; holds the process that has it. Who has it removes the file before closing the descriptor.
        doing: what the holder does, for the refusal: `running a recipe in runs/x`.

    Raises:
        UserError: another process has it.
    """
    while True:
        descriptor, new = _opened(file)
        free, owner = _lock(descriptor, wait=False), _owner(descriptor)
        if free is None and not new:  # no locks here: what the file says has to do
            os.close(descriptor)
            refuse_if_taken(file, doing)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file)
            continue
        if free is False or at_work(owner):
            os.close(descriptor)
            raise _taken(owner, doing)
        with contextlib.suppress(FileNotFoundError):  # its last holder may have removed the file before we locked it
            if os.path.samestat(os.fstat(descriptor), os.stat(file)):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(this_process()).encode(), 0)
                return descriptor
        os.close(descriptor)


def refuse_if_taken(file: Path, doing: str) -> None:
    """Refuse what `take` would refuse, touching nothing. Arguments: as `take`.

    Raises:
        UserError: another process has the lock, or has made its file this moment.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | NO_LINK)
    except FileNotFoundError:
        return
    try:
        owner, age = _owner(descriptor), time.time() - os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
    if at_work(owner) or (not owner and age < YOUNG):
        raise _taken(owner, doing)


def _opened(file: Path) -> tuple[int, bool]:
    """Open a lock file; also, whether it was made by that: of two that start at once, one makes it."""
    while True:
        with contextlib.suppress(FileExistsError):
            return os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | NO_LINK, 0o666), True
        with contextlib.suppress(FileNotFoundError):
            return os.open(file, os.O_RDWR | NO_LINK), False


def _taken(owner: Mapping[str, Any], doing: str) -> UserError:
    who = f"Process {owner['pid']}" if "pid" in owner else "Another process"
    return UserError(f"{who} is {doing}.", "Wait for it or stop it, or choose another --out.")


def _lock(descriptor: int, *, wait: bool) -> bool | None:
    """Lock what is open; say whether that went well, or None where there are no locks.

    The system drops the lock when its holder ends or is killed.
    """
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # a file system without such locks (some network ones)
        return None
    return True


def _owner(descriptor: int) -> dict[str, Any]:
    """Return the process that a lock file names; {} where it is empty or names none."""
    try:
        owner = parse_json(os.pread(descriptor, 4096, 0).decode("utf-8", "replace"), "the lock")
    except UserError:
        return {}
    return owner if isinstance(owner, dict) else {}
