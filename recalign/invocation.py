"""What was typed: noted once by the command line, recorded by every run that it begins, in whatever process."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

INVOKED = "RECALIGN_INVOKED"
"""Environment variable by which processes that the command starts know it."""


@contextlib.contextmanager
def invoking(arguments: Sequence[str]) -> Iterator[None]:
    """Let the runs that begin meanwhile record what was typed, and where; within such a command nothing changes.

    Args:
        arguments: of `recalign`, the first one the subcommand.
    """
    outer = INVOKED in os.environ
    if not outer:
        os.environ[INVOKED] = json.dumps({"arguments": list(arguments), "folder": os.getcwd()})
    try:
        yield
    finally:
        if not outer:
            del os.environ[INVOKED]


def invoked() -> dict[str, Any]:
    """Return what run.json states of it: `invoked`, the arguments and the folder; nothing within a Python program."""
    return {"invoked": json.loads(os.environ[INVOKED])} if INVOKED in os.environ else {}
