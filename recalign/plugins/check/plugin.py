"""The check of one plugin: its declarations, and the trial of its kind on made-up data."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from recalign.api import Params, Plugin
from recalign.errors import UserError
from recalign.plugins.kinds import KINDS
from recalign.plugins.registry import PluginEntry, load


def check(entry: PluginEntry) -> list[str]:
    """Return what is wrong with one plugin, one line per problem; empty where nothing is.

    Args:
        entry: the plugin's entry point; its module is imported.
    """
    try:
        cls = load(entry)
    except UserError as error:
        return [error.what]
    problems = list(_declaration_problems(cls))
    try:
        plugin = cls(name=entry.name)
    except Exception as error:
        return [*problems, f"cannot be built from its defaults: {type(error).__name__}: {error}"]
    try:
        problems += KINDS[entry.kind].problems(plugin)
    except Exception as error:
        problems.append(f"fails on made-up data: {type(error).__name__}: {error}")
    return problems


def _declaration_problems(cls: type[Plugin]) -> Iterator[str]:
    if not inspect.getdoc(cls) or cls.__doc__ is None:
        yield f"the class {cls.__name__} has no docstring"
    if not inspect.getmodule(cls).__doc__:
        yield f"the module {cls.__module__} has no docstring (its first line is the summary of `plugins list`)"
    if not (isinstance(cls.Params, type) and issubclass(cls.Params, Params)):
        yield f"{cls.__name__}.Params is no subclass of recalign.api.Params"
        return
    for name, declared in cls.Params.model_fields.items():
        if declared.is_required():
            yield f"the parameter {name} has no default"
        if not declared.description:
            yield f"the parameter {name} has no description"
