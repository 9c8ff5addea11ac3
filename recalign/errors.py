"""Errors that are the user's to mend: shown without a traceback, exit code 2."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)
ROOM = "Free some space or choose another --out; then run again."
LONGEST, TAIL = 1000, 300
"""Characters of an error that are shown, and how many of them are its end; the rest is what the user sent in."""
COMPARED = 200
"""Characters of a name beyond which nothing is like it."""
DEAD = (errno.EIO, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOMEM, errno.EMFILE)
NAMES = (errno.EEXIST, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)


class UserError(Exception):
    """The user's input cannot be used.

    Args:
        what: what happened, with the offending value (row, key, file); a long value loses its middle.
        hint: what to do about it; printed on its own line.
    """

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = shortened(what, LONGEST, TAIL)
        self.hint = shortened(hint, LONGEST, TAIL)

    def __str__(self) -> str:
        return f"{self.what}\n{self.hint}" if self.hint else self.what


def shortened(text: str, limit: int, tail: int = 0) -> str:
    """Return a text whose middle is left out where it is too long, with how much that was.

    Args:
        text: any text.
        limit: characters that are kept.
        tail: how many of them are the end's.
    """
    if len(text) <= limit:
        return text
    left_out = f" ... ({len(text) - limit:,} characters more) ... "
    return text[: limit - tail] + (left_out + text[-tail:] if tail else left_out.rstrip(" ."))


def did_you_mean(value: str, options: Iterable[str]) -> str:
    """Return a hint that names the closest options, or all of them when none is close.

    Args:
        value: what the user wrote.
        options: what would have been accepted.
    """
    known = sorted(options)
    everything = "Known: " + ", ".join(known) + "." if known else "Nothing is known here."
    return closest(value, known) or everything


def closest(value: str, options: Iterable[str]) -> str:
    """Return a hint that names the closest options, or nothing when none is close. Arguments: as `did_you_mean`."""
    near = sorted(options) if len(value) <= COMPARED else []
    close = difflib.get_close_matches(value, near, n=3, cutoff=0.5)
    return "Did you mean " + " or ".join(f"'{name}'" for name in close) + "?" if close else ""


def advice_on(error: OSError) -> str:
    """Return what to do about a file or folder that cannot be used; empty where the fault is ours.

    Args:
        error: what the system said.
    """
    if error.errno in FULL:
        return ROOM
    if error.errno in CLOSED:
        return "Check who may read and write there, or choose another folder: --out, RECALIGN_HOME."
    if error.errno in DEAD:
        return "See whether the disk, or what else the system names, is well; then run again."
    return "Choose another name: --out, RECALIGN_HOME." if error.errno in NAMES else ""


def wants_memory(error: BaseException) -> bool:
    """Whether something failed for want of memory, of the machine or of its GPU.

    Args:
        error: what was raised; torch raises a RuntimeError for the machine's memory.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and any(
        words in said for words in ("can't allocate memory", "not enough memory", "Storage size calculation overflowed")
    )
