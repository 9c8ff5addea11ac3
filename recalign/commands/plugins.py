"""List plugins, show their parameters, check a package, start a new one."""

from __future__ import annotations

import inspect
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from recalign import console
from recalign.commands.shared_options import JsonOption, QuietOption
from recalign.errors import UserError, did_you_mean
from recalign.params import describe_params
from recalign.plugins.kinds import KINDS, WORDS, find_kind
from recalign.plugins.registry import PluginEntry, find_entry, list_plugins, load, normalised, strays

KindOption = Annotated[str | None, typer.Option(help=f"A kind of plugin: {WORDS}.")]


def list_(kind: KindOption = None, json: JsonOption = False, quiet: QuietOption = False) -> dict[str, Any]:
    """List the installed plugins, importing none."""
    entries = list_plugins(find_kind(kind).name if kind else None)
    claims = Counter((entry.kind, entry.name) for entry in entries)
    rows = [
        {
            "kind": entry.kind,
            "name": entry.name,
            "summary": entry.summary,
            "package": entry.package,
            "version": entry.version,
            "problem": "name claimed twice" if claims[entry.kind, entry.name] > 1 else entry.problem,
        }
        for entry in entries
    ]
    table = Table("kind", "name", "summary", "package", "version")
    for row in rows:
        summary = Text(row["summary"])
        if row["problem"]:
            summary = Text(row["problem"], style="bold red")
        table.add_row(row["kind"], Text(row["name"]), summary, Text(row["package"]), Text(row["version"]))
    console.show(table)
    unread = strays()
    for stray in unread:
        console.warn(stray)
    return {"plugins": rows, "unread": unread}


def show(
    name: Annotated[str, typer.Argument(help="Name of a plugin, such as blade, ndcg or sasrec.")],
    kind: KindOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> dict[str, Any]:
    """Show a plugin's parameters (types, bounds, defaults), its source paper and what it computes."""
    kinds = [find_kind(kind).name] if kind else [each for each in KINDS if _has(each, name)]
    if not kinds:
        known = {entry.name for entry in list_plugins()}
        raise UserError(f"There is no plugin named '{name}'.", " ".join(strays(name)) or did_you_mean(name, known))
    shown = [_describe(find_entry(each, name)) for each in kinds]
    for plugin in shown:
        _print_plugin(plugin)
    return {"plugins": shown}


def check(
    package: Annotated[str, typer.Argument(help="Name of an installed package that has plugins.")],
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> dict[str, Any]:
    """Import every plugin of a package, look at its declarations and try it on made-up data."""
    from recalign.plugins.check.plugin import check as check_entry

    wanted = normalised(package)
    unread = strays(package=wanted)
    entries = [entry for entry in list_plugins() if normalised(entry.package) == wanted]
    if unread:
        raise UserError(unread[0], "Put it into a group that is read, and install the package again.")
    if not entries:
        packages = {entry.package for entry in list_plugins()}
        raise UserError(f"No installed package '{package}' has plugins.", did_you_mean(package, packages))
    found = {f"{entry.kind} {entry.name}": check_entry(entry) for entry in entries}
    for label, problems in found.items():
        console.show(Text(f"{label}: {f'{len(problems)} problems' if problems else 'ok'}"))
        for problem in problems:
            console.show(Text(f"  - {problem}"))
    faulty = {label: problems for label, problems in found.items() if problems}
    if faulty:
        label, problems = next(iter(faulty.items()))
        raise UserError(
            f"{len(faulty)} of {len(found)} plugins of {package} have problems; the first: {label}: {problems[0]}"
        )
    return {"package": package, "checked": sorted(found)}


def new(
    kind: Annotated[str, typer.Argument(help=f"A kind of plugin: {WORDS}.")],
    name: Annotated[str, typer.Argument(help="What users will type: lower-case letters and digits, joined by - or _.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write (default: recalign-NAME here).")] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> dict[str, Any]:
    """Write a package with one plugin, a test that passes and a README."""
    from recalign.plugins.scaffold import write_package

    folder = out or Path("recalign-" + name.replace("_", "-"))
    files = write_package(kind, name, folder)
    console.say(f"Wrote {len(files)} files to {folder}. Next: cd {folder} && pip install -e '.[test]' && pytest")
    return {"folder": str(folder), "files": [str(file) for file in files]}


COMMANDS = {"list": list_, "show": show, "check": check, "new": new}


def _has(kind: str, name: str) -> bool:
    return any(entry.name == name for entry in list_plugins(kind))


def _describe(entry: PluginEntry) -> dict[str, Any]:
    cls = load(entry)
    return {
        "kind": entry.kind,
        "name": entry.name,
        "package": entry.package,
        "version": entry.version,
        "summary": entry.summary,
        "class": f"{cls.__module__}.{cls.__qualname__}",
        "paper": cls.paper,
        "doc": inspect.getdoc(cls) or "",
        "params": describe_params(cls.Params),
    }


def _print_plugin(plugin: dict[str, Any]) -> None:
    console.show(Text(f"{plugin['kind']} {plugin['name']}  ({plugin['package']} {plugin['version']})", style="bold"))
    source = f"Source: {plugin['paper']}." if plugin["paper"] and "Source:" not in plugin["doc"] else ""
    for text in filter(None, (plugin["doc"], source)):
        console.show(Text("\n" + text))
    if not plugin["params"]:
        console.show(Text("\nNo parameters.\n"))
        return
    table = Table("parameter", "type", "bounds", "default", "description")
    for row in plugin["params"]:
        table.add_row(*(Text(str(row[key])) for key in ("name", "type", "bounds", "default", "description")))
    console.show(table)
