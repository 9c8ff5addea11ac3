"""From a recipe to steps: options checked against the commands, sweeps expanded, references resolved, all hashed."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recalign.errors import UserError, did_you_mean
from recalign.params import parse_assignments
from recalign.plugins.kinds import KINDS
from recalign.workflow.foresight import Made, foresee
from recalign.workflow.recipe import NAME, Recipe, dashed
from recalign.workflow.signatures import PARAMS, CommandSignature, signature_of
from recalign.workspace import content_hash, file_hash

REFERENCE = re.compile(r"(?P<label>[^@]*=)?@(?P<step>[A-Za-z0-9_.-]+)(?P<rest>/.*)?")
LONGEST = 200
"""Bytes of a folder's name; disks take 255, of which temporary names beside it need some."""
NAMED = 'Give it a name: { name = "short", option = ... }.'
_Axes = dict[str, dict[str, dict[str, Any]]]  # axis -> label -> the options that this place sets
PLACE = re.compile(r"\{([\w-]+)\}")


@dataclass(frozen=True)
class RecipeStep:
    """One command to run, everything resolved.

    Args:
        id: the step's name and its place in the sweep: `align/fold=0/seed=1`.
        name: the step's name in the recipe.
        command: the subcommand.
        axes: sweep axis -> label of this step's place on it.
        options: key -> value, references replaced by folders.
        arguments: the same as one would type them, --out included.
        needs: ids of the steps that it reads.
        out: output folder.
        key: content hash of what is asked for: options, files that they name, the keys of `needs`.
    """

    id: str
    name: str
    command: str
    axes: dict[str, str]
    options: dict[str, Any]
    arguments: list[str]
    needs: tuple[str, ...]
    out: Path
    key: str


@dataclass
class _Family:
    """Expansions of one [[step]]: its axes (name -> labels), its steps by their place on them, the sweeps it states."""

    axes: dict[str, list[str]] = field(default_factory=dict)
    sweeps: dict[str, Any] = field(default_factory=dict)
    steps: dict[tuple[str, ...], RecipeStep] = field(default_factory=dict)

    def at(self, place: Mapping[str, str]) -> RecipeStep:
        return self.steps[tuple(place[axis] for axis in self.axes)]


def plan(recipe: Recipe, root: Path) -> list[RecipeStep]:
    """Expand a recipe into the steps to run, in an order in which they can be.

    Args:
        recipe: what to run.
        root: folder of the outputs; step `align` writes to `root/align`, in a sweep to `root/align/fold=0/seed=1`.

    Raises:
        UserError: an unknown option, parameter, plugin or reference, a value of the wrong type, an empty sweep.
    """
    planner = _Planner(root, recipe.document.get("defaults", {}))
    planner.check_defaults({step["command"] for step in recipe.document["step"]})
    for table in recipe.document["step"]:
        planner.families[table["name"]] = planner.expand(table)
    return [step for family in planner.families.values() for step in family.steps.values()]


class _Planner:
    """The steps so far, by name."""

    def __init__(self, root: Path, defaults: Mapping[str, Any]) -> None:
        self.root = root
        self.defaults = defaults
        self.families: dict[str, _Family] = {}
        self._hashes: dict[Path, str] = {}
        self._checked: set[tuple[str, ...]] = set()
        self._made: dict[Path, Made] = {}

    def check_defaults(self, commands: set[str]) -> None:
        for key, value in self.defaults.items():
            if isinstance(value, dict):
                if key not in commands:
                    raise UserError(f"[defaults.{key}]: no step runs this command.", did_you_mean(key, commands))
                for name in value:
                    signature_of(key).check_key(dashed(name), f"[defaults.{key}]")
            elif not any(dashed(key) in signature_of(command).keys for command in commands):
                known = {name for command in commands for name in signature_of(command).keys}
                raise UserError(f"[defaults]: no step takes '{key}'.", did_you_mean(key, known))

    def expand(self, table: Mapping[str, Any]) -> _Family:
        """All places of one [[step]]: its own sweep, times those of the steps that it builds on."""
        where, signature = f"Step '{table['name']}'", signature_of(table["command"])
        stated = {dashed(key): value for key, value in table.items() if key not in {"name", "command", "matrix"}}
        for key in stated:
            signature.check_key(key, where)
        sweeps = self._sweeps(table.get("matrix", {}), where)
        own = _axes(sweeps, signature, stated, where)
        options = _merged(self._defaults_for(signature), stated, where)
        axes = self._inherited_axes(options, own, signature, where)
        axes |= {axis: list(places) for axis, places in own.items()}
        family = _Family(axes, sweeps)
        for labels in itertools.product(*axes.values()):
            place = dict(zip(axes, labels, strict=True))
            here = options
            for axis, places in own.items():
                here = _merged(here, places[place[axis]], where)
            family.steps[labels] = self._resolve(table["name"], signature, place, here)
        return family

    def _sweeps(self, matrix: Any, where: str) -> dict[str, Any]:
        """`matrix` with `axis = "@step"` replaced by the sweep of that name which the earlier step states."""
        matrix = _table_of_lists(matrix, where)
        sweeps = {axis if axis == PARAMS else dashed(axis): values for axis, values in matrix.items()}
        for axis, values in sweeps.items():
            match = REFERENCE.fullmatch(values) if isinstance(values, str) else None
            if match:
                stated = self._family(match["step"], f"{where}, matrix.{axis}").sweeps
                if values != f"@{match['step']}" or axis not in stated:
                    raise UserError(
                        f"{where}: matrix.{axis} = {values!r}: step '{match['step']}' states no such sweep.",
                        did_you_mean(axis, set(stated) - {PARAMS}),
                    )
                sweeps[axis] = stated[axis]
        return sweeps

    def _defaults_for(self, signature: CommandSignature) -> dict[str, Any]:
        shared = {dashed(key): value for key, value in self.defaults.items() if not isinstance(value, dict)}
        taken = {key: value for key, value in shared.items() if key in signature.keys}
        own = {dashed(key): value for key, value in self.defaults.get(signature.name, {}).items()}
        return _merged(taken, own, f"[defaults.{signature.name}]")

    def _inherited_axes(
        self, options: Mapping[str, Any], own: _Axes, signature: CommandSignature, where: str
    ) -> dict[str, list[str]]:
        """Axes of the steps that options of one value name; an option of several values gathers a sweep instead."""
        axes: dict[str, list[str]] = {}
        for table in [options, *(sets for places in own.values() for sets in places.values())]:
            for key, value in [*table.items(), *table.get(PARAMS, {}).items()]:
                single = isinstance(value, str) and (key not in table or not signature.is_list(key))
                match = REFERENCE.fullmatch(value) if single else None
                for axis, labels in self._family(match["step"], f"{where}, {key}").axes.items() if match else ():
                    if axis in own or axes.setdefault(axis, labels) != labels:
                        raise UserError(f"{where}: two sweeps are called '{axis}'.", "Rename one of them.")
        return axes

    def _resolve(
        self, name: str, signature: CommandSignature, place: dict[str, str], options: dict[str, Any]
    ) -> RecipeStep:
        identity = "/".join([name, *(f"{axis}={label}" for axis, label in place.items())])
        where, needs, resolved = f"Step '{identity}'", {}, {}
        for key, value in options.items():
            if isinstance(value, dict):
                resolved[key], found = self._resolve_params(value, place, f"{where}, {key}")
            else:
                resolved[key], found = self._resolve_value(value, place, signature.is_list(key), f"{where}, {key}")
            needs.update({step.id: step for step in found})
        out = self.root / identity
        arguments = [*signature.arguments(resolved, where), "--out", str(out)]
        parsed = _with_source(signature.parse(arguments, where), where)
        self._check_plugins(parsed, where)
        with _blamed(where):
            made = foresee(signature.name, parsed, self._made)
        if made is not None:
            self._made[out] = made
        asked = {
            "command": signature.name,
            "options": options,
            "place": place,
            "files": self._files(parsed),
            "needs": [step.key for step in needs.values()],
        }
        return RecipeStep(
            id=identity,
            name=name,
            command=signature.name,
            axes=place,
            options=resolved,
            arguments=arguments,
            needs=tuple(needs),
            out=out,
            key=content_hash(asked),
        )

    def _resolve_params(
        self, params: Mapping[str, Any], place: dict[str, str], where: str
    ) -> tuple[dict[str, Any], list[RecipeStep]]:
        """Resolve a plugin's parameters one by one."""
        pairs = [self._resolve_value(value, place, False, f"{where}.{key}") for key, value in params.items()]
        values = [value for value, _ in pairs]
        return dict(zip(params, values, strict=True)), [step for _, steps in pairs for step in steps]

    def _resolve_value(
        self, value: Any, place: dict[str, str], gathers: bool, where: str
    ) -> tuple[Any, list[RecipeStep]]:
        """Replace references by folders and `{axis}` by labels; return the steps referred to as well."""
        if isinstance(value, list):
            pairs = [self._resolve_value(each, place, gathers, where) for each in value]
            texts = [text for each, _ in pairs for text in (each if isinstance(each, list) else [each])]
            return texts, [step for _, steps in pairs for step in steps]
        if not isinstance(value, str):
            return value, []
        match = REFERENCE.fullmatch(value)
        if not match:
            return _filled(value, place, where), []
        family, rest = self._family(match["step"], where), _filled(match["rest"] or "", place, where)
        if not gathers:
            step = family.at(place)
            return _filled(match["label"] or "", place, where) + f"{step.out}{rest}", [step]
        steps = [step for step in family.steps.values() if _agree(step.axes, place)]
        folders = [f"{step.out}{rest}" for step in steps]
        if match["label"] is None:
            return folders, steps
        aggregated: dict[str, list[str]] = {}
        for step, folder in zip(steps, folders, strict=True):
            aggregated.setdefault(_filled(match["label"], {**place, **step.axes}, where), []).append(folder)
        return [label + ",".join(members) for label, members in aggregated.items()], steps

    def _family(self, name: str, where: str) -> _Family:
        if name not in self.families:
            raise UserError(f"{where}: there is no earlier step '{name}'.", did_you_mean(name, self.families))
        return self.families[name]

    def _files(self, parsed: Mapping[str, Any]) -> dict[str, str]:
        """Hashes of the files and folders that options name, but for those that the recipe's own steps write."""
        hashes = {}
        for key, value in parsed.items():
            path = Path(value) if isinstance(value, Path) or (isinstance(value, str) and "/" in value) else None
            if path is not None and path.exists() and self.root.resolve() not in path.resolve().parents:
                if path not in self._hashes:
                    self._hashes[path] = file_hash(path)
                hashes[key] = self._hashes[path]
        return hashes

    def _check_plugins(self, parsed: Mapping[str, Any], where: str) -> None:
        """Find the plugins and metrics that a step names, and try its parameters on them, before anything runs."""
        named = [
            (kind.name, str(parsed.get(kind.argument) or ""), *(parsed.get(kind.assignments) or ()))
            for kind in KINDS.values()
        ]
        for plugin in [each for each in named if each[1] and each not in self._checked]:
            with _blamed(where):
                _check_plugin(*plugin)
            self._checked.add(plugin)


@contextmanager
def _blamed(where: str) -> Iterator[None]:
    """Errors name the step."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {error.what}", error.hint) from None


def _with_source(parsed: dict[str, Any], where: str) -> dict[str, Any]:
    """Options whose source is a name: where a path stands in its place, the one that recognises it."""
    from recalign.preparation.guessing import named_source

    if not parsed.get("source"):
        return parsed
    with _blamed(where):
        source, path = named_source(parsed["source"], parsed["path"])
    return {**parsed, "source": source, "path": path}


def _table_of_lists(matrix: Any, where: str) -> dict[str, Any]:
    if not isinstance(matrix, dict) or not isinstance(matrix.get(PARAMS, {}), dict):
        raise UserError(f"{where}: matrix = {matrix!r} is no table of lists.", "Write it as matrix.seed = [0, 1].")
    return matrix


def _axes(matrix: dict[str, Any], signature: CommandSignature, stated: Mapping[str, Any], where: str) -> _Axes:
    """Read `matrix`: values of an option (or of a parameter, under params), or tables of options that have a name."""
    axes: _Axes = {}
    for axis, values in matrix.items():
        if axis != PARAMS:
            axes[axis] = _places(axis, values, lambda axis, value: {axis: value}, where)
    for axis, values in matrix.get(PARAMS, {}).items():
        axes[axis] = _places(axis, values, lambda axis, value: {PARAMS: {axis: value}}, where)
    for axis, places in axes.items():
        if not NAME.fullmatch(axis):
            raise UserError(
                f"{where}: matrix has a sweep {axis!r}, which is no name of a folder.",
                "Use letters, digits, dots (not in front) and dashes.",
            )
        for key in {key for sets in places.values() for key in sets}:
            signature.check_key(key, f"{where}, matrix.{axis}")
            if key in stated and key != PARAMS:
                raise UserError(f"{where}: '{key}' is stated both by the step and by matrix.{axis}.")
    return axes


def _places(
    axis: str, values: Any, plain: Callable[[str, Any], dict[str, Any]], where: str
) -> dict[str, dict[str, Any]]:
    """Label -> the options set there, for one axis."""
    if not isinstance(values, list) or not values:
        raise UserError(f"{where}: matrix.{axis} = {values!r} is no list of values.")
    places = {}
    for value in values:
        if isinstance(value, dict) and not value.get("name"):
            raise UserError(f"{where}: a place of matrix.{axis} has no name: {value!r}.")
        label = value["name"] if isinstance(value, dict) else value
        sets = {dashed(key): each for key, each in value.items() if key != "name"} if isinstance(value, dict) else None
        places[re.sub(r"[^\w.+-]+", "-", str(label))] = plain(axis, value) if sets is None else sets
    distinct = {unicodedata.normalize("NFKC", label).casefold() for label in places}  # some disks do not tell A from a
    if len(distinct) < len(values):
        raise UserError(f"{where}: matrix.{axis} names a place twice: {values!r}.", "Names differ by more than case.")
    long = next((label for label in places if len(f"{axis}={label}".encode()) > LONGEST), None)
    if long:
        raise UserError(f"{where}: matrix.{axis} has a place whose name is too long for a folder: {long!r}.", NAMED)
    return places


def _filled(text: str, place: Mapping[str, str], where: str) -> str:
    """Replace `{axis}` by the step's label on that axis."""

    def label(match: re.Match[str]) -> str:
        if dashed(match[1]) not in place:
            raise UserError(f"{where}: {text!r} names no sweep '{match[1]}'.", did_you_mean(match[1], place))
        return place[dashed(match[1])]

    return PLACE.sub(label, text)


def _merged(options: Mapping[str, Any], more: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Options with more on top; tables of parameters are joined."""
    if not isinstance(more.get(PARAMS, {}), dict):
        raise UserError(f"{where}: params = {more[PARAMS]!r} is no table.", "Write it as params = { tau = 0.3 }.")
    joined = {PARAMS: {**options.get(PARAMS, {}), **more[PARAMS]}} if PARAMS in more else {}
    return {**options, **more, **joined}


def _agree(axes: Mapping[str, str], place: Mapping[str, str]) -> bool:
    return all(axes.get(axis, label) == label for axis, label in place.items())


def _check_plugin(kind: str, name: str, *assignments: str) -> None:
    from recalign.metrics.expression import parse_expression
    from recalign.plugins.registry import find_with_params

    if kind == "metric":
        parse_expression(name)
    else:
        find_with_params(kind, name, parse_assignments(assignments))
