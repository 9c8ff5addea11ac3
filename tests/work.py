"""Counting what a computation does, in place of timing it: a busy machine changes no count."""

import sys
from collections.abc import Callable
from typing import Any


def lines_run(function: Callable[[], Any]) -> int:
    """Lines of Python that a call runs, those of all that it calls included; a loop counts each of its rounds."""
    count = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return count
