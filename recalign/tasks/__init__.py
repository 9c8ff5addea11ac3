"""Tasks: what a row asks for, what a response to it is, and how a policy answers it. One file each, one table.

A new task is one file here and one line in `TASKS`.
"""

from __future__ import annotations

from recalign.errors import UserError, did_you_mean
from recalign.tasks.list import ListTask
from recalign.tasks.next import NextTask
from recalign.tasks.rank import RankTask
from recalign.tasks.task import Response, Shape, Task

__all__ = ["TASKS", "Response", "Shape", "Task", "find_task"]

TASKS: dict[str, Task] = {task.name: task for task in (NextTask(), ListTask(), RankTask())}


def find_task(name: str) -> Task:
    """Return the task of a name.

    Raises:
        UserError: there is no such task (with did-you-mean).
    """
    if name not in TASKS:
        raise UserError(f"There is no task '{name}'.", did_you_mean(name, TASKS))
    return TASKS[name]
