"""Sweeps among the systems of a comparison: those that differ in the value of one number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recalign.comparison.aggregation import System
from recalign.comparison.evaluations import PER_RUN
from recalign.comparison.trail import predictions_of
from recalign.runs.names import run_name
from recalign.workspace import RunFolder


@dataclass(frozen=True)
class Sweep:
    """Systems that differ in one number.

    Args:
        parameter: the option's name, such as `tau`.
        values: [n] in ascending order, all different.
        systems: [n] their names.
    """

    parameter: str
    values: tuple[float, ...]
    systems: tuple[str, ...]


def find_sweeps(systems: Sequence[System]) -> list[Sweep]:
    """Find the largest sets of at least two models whose recorded options differ in the value of one number alone."""
    settings = {system.name: _settings(system) for system in systems if not system.baseline}
    found: dict[tuple[str, str], dict[str, float]] = {}
    for name, options in settings.items():
        for key in options:
            value = _number(options[key])
            if value is not None:
                rest = repr(sorted((other, repr(options[other])) for other in options if other != key))
                found.setdefault((key, rest), {})[name] = value
    sweeps = []
    for (key, _), members in found.items():
        ordered = sorted(members.items(), key=lambda member: member[1])
        if len(ordered) > 1 and len(set(members.values())) == len(members):
            parameter = key.rpartition(".")[2]
            sweeps.append(Sweep(parameter, tuple(v for _, v in ordered), tuple(name for name, _ in ordered)))
    return sweeps


def _settings(system: System) -> dict[str, Any]:
    """Flatten the options of training and decoding, without what may differ between the runs of one group."""
    run = system.runs[0]
    folder = predictions_of(run)
    decoding = RunFolder(folder).record.get("options", {}) if folder is not None else {}
    kept = {key: decoding[key] for key in ("decoder", "params", "size") if key in decoding}
    return {**_flat(run.results.get("options", {})), **_flat(kept, "decode.")}


def _flat(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in options.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        elif key not in PER_RUN:
            flat[prefix + key] = run_name(Path(str(value))) if key == "model" and value is not None else value
    return flat


def _number(value: object) -> float | None:
    """Read a number, also one that was given as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
