"""Recipes as written: finding them, reading their TOML, changing them with --set. `planning` turns them into steps."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recalign.errors import UserError, did_you_mean
from recalign.reading import parse_toml, read_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

COMMANDS = ("prepare", "rationales", "sft", "align", "export", "baseline", "decode", "eval", "compare")
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
"""Of steps and sweeps, which name folders: none is hidden, `.` or `..`, and none leads into another."""
RESERVED = ("logs", "recipe.json", "recipe.lock", "run.json")
"""What else lies in a recipe's folder."""


@dataclass(frozen=True)
class Recipe:
    """A recipe as written.

    Args:
        name: the file's name without .toml; outputs go to a folder of that name.
        document: the parsed TOML.
    """

    name: str
    document: dict[str, Any]


def recipe_folder() -> Path:
    """Where the embedded recipes lie: in the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    return package / "recipes" if (package / "recipes").is_dir() else package.parent / "recipes"


def embedded_recipes() -> list[str]:
    """Names of the embedded recipes."""
    return sorted(path.stem for path in recipe_folder().glob("*.toml"))


def load_recipe(source: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        source: a .toml file, or the name of an embedded recipe.
        overrides: `--set` assignments, see `override`.

    Raises:
        UserError: no such recipe, or one that does not parse.
    """
    path = Path(source)
    if path.suffix != ".toml":
        if source not in embedded_recipes():
            beside = path.with_name(f"{path.name}.toml") if path.name else path
            known = [*embedded_recipes(), *([str(beside)] if beside.is_file() else [])]
            raise UserError(
                f"There is no recipe '{source}'.", f"{did_you_mean(source, known)} A file's name ends in .toml."
            )
        path = recipe_folder() / f"{source}.toml"
    if not path.exists():
        raise UserError(f"{path} does not exist.", did_you_mean(path.stem, embedded_recipes()))
    document = parse_toml(read_text(path), path)
    if path.stem.startswith("."):
        raise UserError(f"{path}: a recipe's outputs go to a folder of its name, '{path.stem}'.", "Rename the file.")
    _check_shape(document, str(path))
    for assignment in overrides:
        override(document, assignment)
        _check_shape(document, f"--set {assignment!r}")
    return Recipe(path.stem, document)


def _check_shape(document: dict[str, Any], path: str) -> None:
    """Refuse what is no recipe; `path` is what states it: a file, or an assignment."""
    known = {"title": str, "description": str, "defaults": dict, "step": list}
    for key, value in document.items():
        if key not in known:
            raise UserError(f"{path}: unknown key '{key}'.", did_you_mean(key, known))
        if not isinstance(value, known[key]):
            raise UserError(f"{path}: '{key}' is no {'table' if known[key] is dict else known[key].__name__}.")
    steps = document.get("step", [])
    if not steps or not all(isinstance(step, dict) for step in steps):
        raise UserError(f"{path} has no steps.", 'Write them as [[step]] tables with command = "...".')
    for number, step in enumerate(steps, start=1):
        command = step.get("command")
        if command not in COMMANDS:
            what = "names no command" if command is None else f"has command = {command!r}"
            raise UserError(f"{path}: step {number} {what}.", did_you_mean(str(command or ""), COMMANDS))
        name = step.setdefault("name", command)
        if not isinstance(name, str) or not NAME.fullmatch(name) or name.casefold() in RESERVED:
            raise UserError(
                f"{path}: step {number} has name = {name!r}, which is no name of a folder of its own.",
                f"Use letters, digits, dots (not in front) and dashes, and none of {', '.join(RESERVED)}.",
            )
    names = [step["name"] for step in steps]
    folded = [name.casefold() for name in names]  # some disks do not tell A from a
    twice = next((name for name in names if folded.count(name.casefold()) > 1), None)
    if twice:
        raise UserError(f"{path}: two steps are named '{twice}'.", "Give each a name of its own.")


def override(document: dict[str, Any], assignment: str) -> None:
    """Apply one `--set`, in place.

    `STEP.OPTION=VALUE` (also STEP.params.NAME and STEP.matrix.AXIS) states an option of one step,
    `defaults.OPTION=VALUE` a default; `OPTION=VALUE` replaces the option wherever the recipe states it.
    Values are TOML, or else plain text; of a sweep over named places, the names of those to keep.

    Raises:
        UserError: not of that form, no such step, or an option that the recipe states nowhere.
    """
    target, equals, text = assignment.partition("=")
    if not equals or not target:
        raise UserError(f"--set {assignment!r} is not of the form key=value.", "Write it as --set data.path=FOLDER.")
    value = _value(text)
    *path, key = target.strip().split(".")
    tables = {step["name"]: step for step in document["step"]} | {"defaults": document.setdefault("defaults", {})}
    if path:
        if path[0] not in tables:
            raise UserError(f"--set {assignment!r}: there is no step '{path[0]}'.", did_you_mean(path[0], tables))
        table = tables[path[0]]
        for part in path[1:]:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise UserError(f"--set {assignment!r}: '{part}' is no table.", f"Set it as {path[0]}.{part}=...")
        _put(tables, table, key, value, in_matrix="matrix" in path)
        return
    stated = [hit for table in tables.values() for hit in _tables_below(table)]
    hits = [(table, in_matrix, name) for table, in_matrix in stated for name in table if dashed(name) == dashed(key)]
    if not hits:
        names = {name for table, _ in stated for name, each in table.items() if not isinstance(each, dict)}
        raise UserError(
            f"--set {assignment!r}: the recipe states '{key}' nowhere.",
            f"{did_you_mean(key, names - {'name', 'command'})} A new option is set as STEP.{key}=...",
        )
    for table, in_matrix, name in hits:
        _put(tables, table, name, value, in_matrix=in_matrix)


def _value(text: str) -> Any:
    """Read the value of an assignment: TOML, or else plain text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _tables_below(table: dict[str, Any], in_matrix: bool = False) -> list[tuple[dict[str, Any], bool]]:
    """A table and all tables inside it, each with whether it belongs to a matrix."""
    found = [(table, in_matrix)]
    for key, value in table.items():
        if isinstance(value, dict):
            found += _tables_below(value, in_matrix or key == "matrix")
    return found


def _put(tables: dict[str, Any], table: dict[str, Any], key: str, value: Any, *, in_matrix: bool) -> None:
    """State a value; of a sweep over named places, keep those that the value names."""
    if not in_matrix:
        table[key] = value
        return
    values = value if isinstance(value, list) else [value]
    places = {
        place["name"]: place for place in _swept(tables, table, key) if isinstance(place, dict) and "name" in place
    }
    if places and not any(isinstance(each, dict) for each in values):
        unknown = next((each for each in values if str(each) not in places), None)
        if unknown is not None:
            raise UserError(f"--set {key}={unknown}: the sweep has no such place.", did_you_mean(str(unknown), places))
        values = [places[str(each)] for each in values]
    table[key] = values


def _swept(tables: dict[str, Any], table: dict[str, Any], axis: str) -> Any:
    """The values of a sweep; where it refers to an earlier step's, those."""
    values = table.get(axis, [])
    for _ in tables:
        if isinstance(values, str):
            matrix = tables.get(values.removeprefix("@"), {}).get("matrix")
            values = matrix.get(axis, []) if isinstance(matrix, dict) else []
    return values


def dashed(key: str) -> str:
    """An option as the command line spells it; recipes may use underscores too."""
    return key.replace("_", "-")
