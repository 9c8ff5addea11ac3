"""The check of one plugin: its declarations, and the trial of its kind on made-up data."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from recalign.api import Params, Plugin
from recalign.errors import UserError
from recalign.plugins.kinds import KINDS, Kind
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
    declared = list(_declaration_problems(cls))
    try:
        plugin = cls(name=entry.name)
    except Exception as error:
        return [*declared, f"cannot be built from its defaults: {type(error).__name__}: {error}"]
    return [*declared, *_trial_problems(KINDS[entry.kind], plugin)]


def problems(plugin: Plugin) -> list[str]:
    """Return what is wrong with a plugin that was made already, one line per problem; it need not be installed.

    Args:
        plugin: of any kind, with the parameters that it is to be tried with.
    """
    kind = next(kind for kind in KINDS.values() if isinstance(plugin, kind.base_class()))
    return [*_declaration_problems(type(plugin)), *_trial_problems(kind, plugin)]


def _trial_problems(kind: Kind, plugin: Plugin) -> list[str]:
    found: list[str] = []
    try:
        found.extend(kind.problems(plugin))
    except Exception as error:
        found.append(f"fails on made-up data: {type(error).__name__}: {error}")
    return found


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
