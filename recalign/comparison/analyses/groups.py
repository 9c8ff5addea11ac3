"""Parts of the rows: every system's mean in each, and its paired difference to the reference there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from recalign.comparison.aggregation import System
from recalign.comparison.analyses.partitions import Part, Partition
from recalign.comparison.systems import Comparison
from recalign.evaluation.significance import Interval, Paired, bootstrap_interval, holm, paired


@dataclass(frozen=True)
class SystemInPart:
    """One system in one part of the rows.

    Args:
        system: its name.
        baseline: whether it is a baseline.
        mean: with its interval; `n` rows had a value.
        test: system - reference over the part's rows; None for the reference, and where no row has both values.
        p_holm: p after Holm's correction over parts and systems, models and baselines apart; None likewise.
    """

    system: str
    baseline: bool
    mean: Interval
    test: Paired | None = None
    p_holm: float | None = None


@dataclass(frozen=True)
class PartResult:
    """One part: its label, its numbers of rows and users, and what each system reaches there."""

    label: str
    rows: int
    users: int
    systems: tuple[SystemInPart, ...]


@dataclass(frozen=True)
class GroupResult:
    """One partition, by one metric.

    Args:
        analysis: the partition's name.
        title: its title.
        counts: what rows are parted by.
        metric: that is looked at.
        reference: name of the system that the others are held against.
        parts: in ascending order.
        left_out: rows that have no such number.
    """

    analysis: str
    title: str
    counts: str
    metric: str
    reference: str
    parts: tuple[PartResult, ...]
    left_out: int


def by_group(
    comparison: Comparison, partition: Partition, numbers: np.ndarray, metrics: Sequence[str], seed: int
) -> list[GroupResult]:
    """Measure every part of the rows.

    Args:
        comparison: systems over the same rows.
        partition: how to part them.
        numbers: [U] what to part them by.
        metrics: one result each.
        seed: of the bootstrap.
    """
    known = np.flatnonzero(~np.isnan(numbers))
    parts = [Part(part.label, known[part.places]) for part in partition.parts(numbers[known])]
    found = []
    for metric in metrics:
        measured = [
            [_measured(comparison, system, metric, part, seed) for system in comparison.systems] for part in parts
        ]
        corrected = _corrected(measured)
        results = [_result(comparison, part, cells) for part, cells in zip(parts, corrected, strict=True)]
        about = (partition.name, partition.title, partition.counts, metric, comparison.reference)
        found.append(GroupResult(*about, tuple(results), len(numbers) - len(known)))
    return found


def _result(comparison: Comparison, part: Part, systems: Sequence[SystemInPart]) -> PartResult:
    users = comparison.systems[0].frame["user_id"].to_numpy()[part.places]
    return PartResult(part.label, len(part.places), len(np.unique(users)), tuple(systems))


def _measured(comparison: Comparison, system: System, metric: str, part: Part, seed: int) -> SystemInPart:
    """One system's mean and test in one part; null values are left out."""
    values, users = (system.frame[name].to_numpy()[part.places] for name in (metric, "user_id"))
    has = ~np.isnan(values)
    found = SystemInPart(system.name, system.baseline, bootstrap_interval(values[has], seed, users=users[has]))
    if system.name == comparison.reference:
        return found
    reference = next(each for each in comparison.systems if each.name == comparison.reference)
    others = reference.frame[metric].to_numpy()[part.places]
    both = has & ~np.isnan(others)
    return replace(found, test=paired(others[both], values[both], seed, users=users[both]) if both.any() else None)


def _corrected(measured: Sequence[Sequence[SystemInPart]]) -> list[list[SystemInPart]]:
    """Holm's correction over all parts and systems; models and baselines are two families."""
    adjusted: dict[tuple[int, int], float] = {}
    for baseline in (False, True):
        tests = {
            (i, j): cell.test.p
            for i, cells in enumerate(measured)
            for j, cell in enumerate(cells)
            if cell.test is not None and cell.baseline is baseline
        }
        adjusted |= dict(zip(tests, holm(list(tests.values())), strict=True))
    return [
        [replace(cell, p_holm=adjusted.get((i, j))) for j, cell in enumerate(cells)] for i, cells in enumerate(measured)
    ]
