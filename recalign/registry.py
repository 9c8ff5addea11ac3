"""Find plugins: list entry points without importing them, import only what is asked for, report clashes and broken ones."""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from recalign import hookspecs
from recalign.errors import UserError, did_you_mean
from recalign.params import build_params

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recalign.api import Plugin

KINDS = ("objective", "reward", "decoder", "source")


@dataclass(frozen=True)
class PluginEntry:
    """One entry point, known without importing it."""

    kind: str
    name: str
    package: str
    version: str
    entry_point: EntryPoint

    @property
    def summary(self) -> str:
        """First line of the plugin module's docstring, read from its source without importing it."""
        try:
            text = _module_source(self.entry_point.module)
            doc = ast.get_docstring(ast.parse(text)) if text else None
        except (OSError, SyntaxError, ValueError):
            doc = None
        return doc.splitlines()[0] if doc else ""


def group_of(kind: str) -> str:
    """Return the entry-point group of a kind: `recalign.rewards` for `reward`."""
    return f"recalign.{kind}s"


def list_plugins(kind: str | None = None) -> list[PluginEntry]:
    """List what is installed, by kind and name. Imports no plugin; clashing names are all listed."""
    rows = {
        (k, point.name, point.dist.name if point.dist else "?", point.value): PluginEntry(
            k, point.name, point.dist.name if point.dist else "?", point.dist.version if point.dist else "?", point
        )
        for k in ([kind] if kind else KINDS)
        for point in entry_points(group=group_of(k))
    }
    return sorted(rows.values(), key=lambda entry: (KINDS.index(entry.kind), entry.name, entry.package))


def find_entry(kind: str, name: str) -> PluginEntry:
    """Find a plugin by the name that users type.

    Raises:
        UserError: no such name (with did-you-mean), or two packages claim it (both named).
    """
    matches = [entry for entry in list_plugins(kind) if entry.name == name]
    if not matches:
        raise UserError(
            f"There is no {kind} named '{name}'.", did_you_mean(name, [entry.name for entry in list_plugins(kind)])
        )
    if len(matches) > 1:
        claims = " and ".join(f"{entry.package} {entry.version}" for entry in matches)
        raise UserError(f"The {kind} '{name}' is claimed by {claims}.", "Uninstall one of these packages.")
    return matches[0]


def find(kind: str, name: str) -> type[Plugin]:
    """Import one plugin and return its class.

    Raises:
        UserError: unknown name, clash, a module that fails to import, or one that hands over no such class.
    """
    entry = find_entry(kind, name)
    try:
        module = entry.entry_point.load()
    except Exception as error:
        raise UserError(
            f"The {kind} '{name}' of package {entry.package} {entry.version} fails to import: "
            f"{type(error).__name__}: {error}",
            f"Mend or uninstall {entry.package}; every other plugin still works.",
        ) from error
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(module, name=f"{entry.package}:{name}")
        manager.check_pending()
        found = getattr(manager.hook, f"recalign_{kind}")()
    except pluggy.PluginValidationError as error:
        raise UserError(
            f"The {kind} '{name}' of package {entry.package} has a hook that does not fit: {error}",
            "Compare it with recalign.hookspecs.",
        ) from error
    base = _base_of(kind)
    if len(found) != 1 or not (isinstance(found[0], type) and issubclass(found[0], base)):
        raise UserError(
            f"{entry.entry_point.value} (package {entry.package}) hands over no {base.__name__} class for "
            f"{kind} '{name}'.",
            f"Add `@hookimpl def recalign_{kind}(): return YourClass` to that module.",
        )
    return found[0]


def create(kind: str, name: str, params: Mapping[str, Any] | None = None) -> Plugin:
    """Find a plugin and build it from its parameters.

    Raises:
        UserError: as `find`; parameters that the declaration refuses.
    """
    cls = find(kind, name)
    return cls(build_params(cls.Params, params or {}, f"{kind} '{name}'"), name=name)


def _base_of(kind: str) -> type[Plugin]:
    from recalign import api

    bases: dict[str, type[Plugin]] = {
        "objective": api.Objective,
        "reward": api.Reward,
        "decoder": api.Decoder,
        "source": api.Source,
    }
    return bases[kind]


def _module_source(module: str) -> str | None:
    """Source text of a module, found through its top-level package only (find_spec on a submodule imports parents)."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        return None
    if not rest:
        return Path(spec.origin).read_text(encoding="utf-8")
    for folder in spec.submodule_search_locations or []:
        for candidate in (Path(folder, *rest).with_suffix(".py"), Path(folder, *rest, "__init__.py")):
            if candidate.is_file():
                return candidate.read_text(encoding="utf-8")
    return None
