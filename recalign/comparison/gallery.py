"""All figures of a comparison, and their files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recalign.comparison.analyses import NO_ANALYSES, Analyses
from recalign.comparison.analyses.drawings import draw_analyses
from recalign.comparison.curves import read_curves, training_curves
from recalign.comparison.figures import Drawn
from recalign.comparison.plots import differences, forest, intervals, ranked, sweep, wins
from recalign.comparison.report import main_metrics
from recalign.comparison.sweeps import find_sweeps
from recalign.comparison.systems import Comparison
from recalign.comparison.tradeoffs import axes_of, tradeoff
from recalign.comparison.trail import Trail
from recalign.workspace import atomic


@dataclass(frozen=True)
class Gallery:
    """The figures, part by part; a part without figures is empty.

    Args:
        rankings: metric -> means of all systems, and their differences to the reference.
        tradeoffs: accuracy against the rest.
        sweeps: metrics over swept parameters.
        curves: of the training runs.
        wins: metric -> shares of users, and sorted differences.
        analyses: parts of the rows, and varied rows.
    """

    rankings: Mapping[str, Sequence[Drawn]]
    tradeoffs: Sequence[Drawn]
    sweeps: Sequence[Drawn]
    curves: Sequence[Drawn]
    wins: Mapping[str, Sequence[Drawn]]
    analyses: Sequence[Drawn] = ()

    @property
    def all(self) -> list[Drawn]:
        """Every figure, in the page's order."""
        ranked, users = ([each for drawn in part.values() for each in drawn] for part in (self.rankings, self.wins))
        return [*ranked, *self.tradeoffs, *self.sweeps, *self.curves, *users, *self.analyses]


def draw_all(
    comparison: Comparison, trails: Mapping[str, Sequence[Trail]], analyses: Analyses = NO_ANALYSES
) -> Gallery:
    """Draw what there is to see.

    Args:
        comparison: what to show.
        trails: system -> what each of its runs came from, for the training curves.
        analyses: of the comparison.
    """
    metrics = [metric for metric in main_metrics(comparison.metrics) if ranked(comparison, metric)]
    sweeps = find_sweeps(comparison.systems)
    tested = [metric for metric in metrics if _tested(comparison, metric, baselines=True)]
    by_user = {
        metric: [wins(comparison, metric)]
        + ([differences(comparison, metric)] if _tested(comparison, metric, baselines=False) else [])
        for metric in tested
    }
    held = metrics[:1]
    return Gallery(
        {
            metric: [intervals(comparison, metric)] + ([forest(comparison, metric)] if metric in tested else [])
            for metric in metrics
        },
        [tradeoff(comparison, metric, axis, sweeps) for metric in held for axis in axes_of(comparison)],
        [sweep(comparison, found, metric) for found in sweeps for metric in metrics],
        [training_curves(comparison, name, curves) for name, curves in read_curves(comparison, trails).items()],
        by_user,
        draw_analyses(analyses, comparison),
    )


def _tested(comparison: Comparison, metric: str, *, baselines: bool) -> bool:
    """Whether some system, or some model, was tested on a metric."""
    systems = [system for system in comparison.systems if baselines or not system.baseline]
    return any(s.name in comparison.tests and comparison.tests[s.name][metric].difference.n for s in systems)


def write_figures(figures: Sequence[Drawn], folder: Path) -> list[Path]:
    """Write figures as SVG and PNG; return the paths.

    Raises:
        UserError: the disk is full.
    """
    paths: list[Path] = []
    for drawn in figures:
        name = re.sub(r"[^A-Za-z0-9.@_+-]+", "-", drawn.name)[:100].strip("-.") or "figure"
        twin = 1
        while folder / f"{name}.svg" in paths:
            twin += 1
            name = f"{name.removesuffix(f'-{twin - 1}')}-{twin}"
        for suffix, content in ((".svg", drawn.svg), (".png", drawn.png)):
            path = folder / f"{name}{suffix}"
            with atomic(path) as temporary:
                temporary.write_bytes(content)
            paths.append(path)
    return paths
