"""The trial of teachers: asked about a few made-up candidates, unless the questions would leave this machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

from recalign.api import Case, Reply, Teacher, TeacherContext
from recalign.errors import UserError
from recalign.plugins.check import examples
from recalign.plugins.check.recommenders import training


def problems(teacher: Teacher) -> Iterator[str]:
    """Begin and ask; yield one line per problem. A teacher that is remote, or lacks a model, is not asked."""
    context = TeacherContext(examples.catalogue(), training, _no_model)
    cases = [Case(row, item, f"Shall item {item} be recommended?") for row in examples.rows() for item in (2, 7)]
    for name in ("batch_size", "concurrency"):
        if getattr(teacher, name) < 1:
            yield f"{name} is {getattr(teacher, name)}; it must be 1 or more"
            return
    if min(teacher.most_tokens(cases[0])) < 0:
        yield "most_tokens returns less than nothing"
    if teacher.remote:
        return
    try:
        teacher.begin(context)
    except UserError:
        return  # a model is missing, and there is nothing to try without
    for start in range(0, len(cases), teacher.batch_size):
        batch = cases[start : start + teacher.batch_size]
        replies = teacher.reply(batch)
        if len(replies) != len(batch):
            yield f"reply returns {len(replies)} replies to {len(batch)} cases"
        elif not all(isinstance(reply, Reply) for reply in replies):
            yield "reply returns something else than a Reply"


def _no_model(name: str) -> NoReturn:
    raise UserError("No model is loaded where a plugin is checked.")
