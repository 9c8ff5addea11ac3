"""Find plugins: list entry points without importing any, import what is asked for, report clashes and broken ones."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.abc import InspectLoader
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

import pluggy

from recalign.errors import UserError, did_you_mean, wants_memory
from recalign.params import Params, build_params
from recalign.plugins.hookspecs import PROJECT, specifications
from recalign.plugins.kinds import GROUPS, KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from recalign.api import Plugin


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
        """First line of the module's docstring, read from its source."""
        try:
            doc = ast.get_docstring(ast.parse(_source(self.entry_point.module) or ""))
        except (ImportError, SyntaxError):
            return ""
        return doc.splitlines()[0] if doc else ""

    @property
    def problem(self) -> str:
        """Why it cannot work, as far as can be told without importing it; empty where nothing is wrong."""
        try:
            ast.parse(_source(self.entry_point.module) or "")
        except ImportError as error:
            return str(error)
        except SyntaxError as error:
            return f"{self.entry_point.module} does not parse: {error.msg}, line {error.lineno}"
        return ""


def list_plugins(kind: str | None = None) -> list[PluginEntry]:
    """List what is installed, by kind and name. Imports no plugin; clashing names are all listed."""
    installed, order = entry_points(), list(KINDS)
    rows = {}  # a distribution that is found twice on the path (editable and built) counts once
    for each in [kind] if kind else KINDS:
        for point in installed.select(group=KINDS[each].group):
            package, version = (point.dist.name, point.dist.version) if point.dist else ("?", "?")
            rows[each, point.name, package, point.value] = PluginEntry(each, point.name, package, version, point)
    return sorted(rows.values(), key=lambda entry: (order.index(entry.kind), entry.name, entry.package))


def strays(name: str | None = None, package: str | None = None) -> list[str]:
    """Say of what is declared for recalign in a group that is not read where it stands and which group may be meant.

    Args:
        name: of a plugin; None: all.
        package: normalised name of a distribution; None: all.
    """
    read, installed, found = {kind.group for kind in KINDS.values()}, entry_points(), set()
    for group in installed.groups:
        if not group.startswith(GROUPS) or group in read:
            continue
        hint = did_you_mean(group.removeprefix(GROUPS), (each.removeprefix(GROUPS) for each in read))
        for point in installed.select(group=group):
            owner = point.dist.name if point.dist else "?"
            if name in (None, point.name) and package in (None, normalised(owner)):
                what = f"{owner} declares '{point.name}' in the entry-point group '{group}', which is not read."
                found.add(f"{what} {hint}")
    return sorted(found)


def normalised(package: str) -> str:
    """Return a distribution's name as tools compare such names."""
    return package.lower().replace("_", "-").replace(".", "-")


def find_entry(kind: str, name: str) -> PluginEntry:
    """Find a plugin by the name that users type.

    Raises:
        UserError: no such name (with did-you-mean), or two packages claim it (both named).
    """
    matches = [entry for entry in list_plugins(kind) if entry.name == name]
    if not matches:
        raise UserError(
            f"There is no {kind} named '{name}'.",
            " ".join(strays(name)) or did_you_mean(name, [entry.name for entry in list_plugins(kind)]),
        )
    if len(matches) > 1:
        claims = " and ".join(f"{entry.package} {entry.version}" for entry in matches)
        raise UserError(f"The {kind} '{name}' is claimed by {claims}.", "Uninstall one of these packages.")
    return matches[0]


def find(kind: str, name: str) -> type[Plugin]:
    """Import one plugin and return its class.

    Raises:
        UserError: unknown name, clash, a module that fails to import, or one that returns no such class.
    """
    return load(find_entry(kind, name))


def load(entry: PluginEntry) -> type[Plugin]:
    """Import the plugin of an entry and return its class.

    Raises:
        UserError: a module that fails to import, a hook that does not fit, or one that returns no such class.
    """
    kind, named = KINDS[entry.kind], f"The {entry.kind} '{entry.name}' of package {entry.package} {entry.version}"
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(specifications())
    try:
        module = entry.entry_point.load()
        manager.register(module, name=f"{entry.package}:{entry.name}")
        manager.check_pending()
        found = getattr(manager.hook, kind.hook)()
    except pluggy.PluginValidationError as error:
        raise UserError(
            f"{named} has a hook that does not fit: {error}",
            f"Write `@hookimpl def {kind.hook}(): return YourClass` in that module.",
        ) from error
    except SystemExit as error:
        raise UserError(
            f"{named} ends the program at import (exit code {error.code}).",
            f"Mend or uninstall {entry.package}; every other plugin still works.",
        ) from error
    except Exception as error:
        raise UserError(
            f"{named} fails to import: {type(error).__name__}: {error}",
            f"Mend or uninstall {entry.package}; every other plugin still works.",
        ) from error
    base = kind.base_class()
    if len(found) != 1 or not (isinstance(found[0], type) and issubclass(found[0], base)):
        raise UserError(
            f"{named} returns no {base.__name__} class ({entry.entry_point.value}).",
            f"Add `@hookimpl def {kind.hook}(): return YourClass` to that module.",
        )
    return found[0]


def find_with_params(kind: str, name: str, params: Mapping[str, Any] | None = None) -> tuple[type[Plugin], Params]:
    """Find a plugin and check parameters against its declaration, without making it.

    Returns:
        The plugin's class and its checked parameters.

    Raises:
        UserError: as `find`; parameters that the declaration refuses.
    """
    cls = find(kind, name)
    return cls, _checked(cls, kind, name, params)


def _checked(cls: type[Plugin], kind: str, name: str, params: Mapping[str, Any] | None) -> Params:
    hint = f"`recalign plugins show {name}` lists types and bounds."
    return build_params(cls.Params, params or {}, f"{kind} '{name}'", hint)


def create(kind: str, name: str, params: Mapping[str, Any] | None = None) -> Any:
    """Find a plugin and make it from its parameters.

    Raises:
        UserError: as `find_with_params`; parameters that the plugin itself refuses.
    """
    return make(find(kind, name), kind, name, params)


def make(cls: type[Plugin], kind: str, name: str, params: Mapping[str, Any] | None = None) -> Any:
    """Make a plugin of a class that was found before. Arguments and errors: as `create`."""
    return cls(_checked(cls, kind, name, params), name=name)


@contextlib.contextmanager
def blamed(kind: str, plugin: Plugin, method: str) -> Iterator[None]:
    """Call a plugin inside: what a third party's raises becomes an error that names it; our own faults stay ours.

    Args:
        kind: of the plugin.
        plugin: that is called.
        method: of it, for the error text.

    Raises:
        UserError: the plugin raised, and is none of the built-in ones.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        if wants_memory(error):
            raise
        if type(plugin).__module__.partition(".")[0] == "recalign":
            raise
        raise plugin_error(kind, plugin, f"raised {type(error).__name__} in {method}: {error}") from error


def plugin_error(kind: str, plugin: Plugin, what: str) -> UserError:
    """Blame a plugin.

    Args:
        kind: of the plugin.
        plugin: that misbehaved; it is named with its package.
        what: it did, such as "returned no list".
    """
    return UserError(
        f"{_owner(kind, plugin)} {what.rstrip('.')}.",
        f"This is the plugin's fault; report it to its authors, or choose another {kind}.",
    )


def data_error(source: Plugin, path: object, error: Exception) -> UserError:
    """Say that a source could not read what the user named: the data are at fault, as far as can be told.

    Args:
        source: that read.
        path: what the user named.
        error: what the source, or the frames that it handed over, raised.
    """
    why = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")
    return UserError(
        f"{_owner('source', source)} cannot read {path}: {why}.",
        "Check that this is what the source reads; if it is, tell the authors of the source.",
    )


def _owner(kind: str, plugin: Plugin) -> str:
    """A plugin, named with its package."""
    top = type(plugin).__module__.partition(".")[0]
    entries = [entry for entry in list_plugins(kind) if entry.name == plugin.name]
    mine = [entry for entry in entries if entry.entry_point.module.partition(".")[0] == top]
    package = f"package {mine[0].package} {mine[0].version}" if mine else f"module {type(plugin).__module__}"
    return f"The {kind} '{plugin.name}' of {package}"


def _source(module: str) -> str | None:
    """Source text of a module (None: it has none, being compiled), found without importing its parents.

    Raises:
        ImportError: there is no such module.
    """
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    for part in rest:
        if spec is None:
            break
        spec = PathFinder.find_spec(f"{spec.name}.{part}", spec.submodule_search_locations)
    if spec is None or spec.loader is None:
        raise ImportError(f"there is no module {module}")
    return spec.loader.get_source(module) if isinstance(spec.loader, InspectLoader) else None
