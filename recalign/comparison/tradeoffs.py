"""Trade-offs: accuracy against what a list is judged by besides, and against cost, with the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recalign.comparison.aggregation import System
from recalign.comparison.figures import MUTED, Drawn, arrow, draw, looks, mark, plain
from recalign.comparison.sweeps import Sweep
from recalign.comparison.systems import Comparison
from recalign.errors import UserError
from recalign.evaluation.tables import number
from recalign.metrics.expression import CorpusExpression, MetricExpression, parse_metric
from recalign.runs.cost import COLUMNS

COSTS = {"training_seconds": False, "prompts_per_second": True, "peak_memory_mb": False}
"""Cost that is held against accuracy -> whether more of it is better."""
PANELS = 8
REACH = 0.75
"""Room beside the models, in parts of their own range, within which baselines are drawn where they are."""


@dataclass(frozen=True)
class Axis:
    """What accuracy is held against.

    Args:
        name: as shown.
        better: whether higher values are better; None: neither.
        values: system -> value, of those that have one.
        logarithmic: whether it is drawn by its logarithm.
    """

    name: str
    better: bool | None
    values: Mapping[str, float]
    logarithmic: bool = False


def axes_of(comparison: Comparison) -> list[Axis]:
    """Find what accuracy can be held against: metrics that do not read the targets, and costs, where systems differ.

    Of a metric that was measured at several cutoffs, the last one is taken.
    """
    found: dict[str, Axis] = {}
    columns = [(name, {s.name: s.summary[name].mean for s in comparison.systems}) for name in comparison.metrics]
    corpus = comparison.systems[0].corpus
    columns += [(name, {s.name: s.corpus.get(name) for s in comparison.systems}) for name in corpus]
    for name, values in columns:
        metric = metric_named(name)
        if metric is not None and not any("targets" in term.metric.reads for term in metric.terms):
            found[name.partition("@")[0]] = _axis(name, comparison.higher_is_better.get(name), values)
    for key, better in COSTS.items():
        values = {system.name: system.cost.get(key) for system in comparison.systems}
        found[f"cost {key}"] = _axis(COLUMNS[key], better, values, logarithmic=True)
    return [axis for axis in found.values() if len(set(axis.values.values())) > 1][:PANELS]


def metric_named(name: str) -> MetricExpression | CorpusExpression | None:
    """Parse a metric's name; None where its plugin is not installed here."""
    try:
        return parse_metric(name, provided=("exact",))
    except UserError:
        return None


def _axis(name: str, better: bool | None, values: Mapping[str, float | None], logarithmic: bool = False) -> Axis:
    known = {system: value for system, value in values.items() if value is not None}
    return Axis(name, better, known, logarithmic and all(value > 0 for value in known.values()))


def pareto_front(points: Mapping[str, tuple[float, float]], better: tuple[bool, bool]) -> list[str]:
    """Name the points that no other point beats: as good in both, and better in one.

    Args:
        points: name -> (x, y).
        better: whether higher values are better, of x and of y.

    Returns:
        Names, in ascending order of x.
    """
    signed = {name: (x if better[0] else -x, y if better[1] else -y) for name, (x, y) in points.items()}
    front = [
        name
        for name, (x, y) in signed.items()
        if not any(a >= x and b >= y and (a > x or b > y) for a, b in signed.values())
    ]
    return sorted(front, key=lambda name: points[name])


def tradeoff(comparison: Comparison, metric: str, axis: Axis, sweeps: Sequence[Sweep]) -> Drawn:
    """Draw a metric against something else: a point a system, the Pareto front stepped, sweeps joined."""
    look = looks(comparison.systems, comparison.reference)
    better = comparison.higher_is_better.get(metric)
    known: dict[str, tuple[float, float]] = {}
    for system in comparison.systems:
        mean = system.summary[metric].mean
        if mean is not None and system.name in axis.values:
            known[system.name] = (axis.values[system.name], mean)
    systems = [system for system in comparison.systems if system.name in known]
    fair = {s.name: known[s.name] for s in systems if not s.oracle}
    front = [] if axis.better is None or better is None else pareto_front(fair, (axis.better, better))

    def paint(axes: Any) -> Mapping[str, str]:
        from matplotlib.ticker import LogLocator

        if axis.logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.minorticks_off()
        across, up = ({name: point[i] for name, point in known.items()} for i in (0, 1))
        spans = [_span(systems, across, logarithmic=axis.logarithmic), _span(systems, up)]
        axes.set_xlim(spans[0])
        axes.set_ylim(spans[1])
        for found in sweeps:
            joined = [known[name] for name in found.systems if name in known]
            if len(joined) > 1:
                axes.plot(*zip(*joined, strict=True), color=MUTED, linewidth=1, zorder=1)
        if len(front) > 1:
            where = "post" if bool(axis.better) != bool(better) else "pre"
            axes.step(
                *zip(*(known[name] for name in front), strict=True),
                where=where,
                color=MUTED,
                linewidth=0.9,
                linestyle=":",
                zorder=1,
            )
        notes = {}
        seen = {name: tuple(np.clip(point, *np.transpose(spans))) for name, point in known.items()}
        for place, (name, (x, y)) in enumerate(known.items()):
            mark(axes, seen[name][0], seen[name][1], look[name], size=7, gid=f"point-{place}")
            on = ", on the Pareto front" if name in front else ""
            notes[f"point-{place}"] = f"{name}: {metric} {number(y)}, {axis.name} {number(x)}{on}"
        axes.set_xlabel(axis.name + arrow(axis.better))
        axes.set_ylabel(metric + arrow(better))
        _name_points(axes, systems, known, seen)
        return notes

    text = f"{metric} against {axis.name}: " + "; ".join(
        f"{name} ({number(x)}, {number(y)})" for name, (x, y) in known.items()
    )
    text += f". Pareto front: {', '.join(front)}." if front else "."
    return draw(f"tradeoff-{metric}-{axis.name}", f"{metric} against {axis.name}", text, paint)


def _span(systems: Sequence[System], values: Mapping[str, float], *, logarithmic: bool = False) -> tuple[float, float]:
    """Choose the ends of an axis so that the models are told apart; a baseline far from them stands at the edge.

    Margins of a logarithmic axis are factors: however near zero a value is, its ends are above zero.
    """
    if logarithmic:
        low, high = _span(systems, {name: float(np.log10(value)) for name, value in values.items()})
        return 10**low, 10**high
    models = [values[system.name] for system in systems if not system.baseline] or list(values.values())
    low, high = min(models), max(models)
    room = REACH * (high - low) or np.inf
    low, high = max(min(values.values()), low - room), min(max(values.values()), high + room)
    margin = 0.1 * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin


def _name_points(
    axes: Any,
    systems: Sequence[System],
    known: Mapping[str, tuple[float, float]],
    points: Mapping[str, tuple[float, float]],
) -> None:
    """Write names beside markers where there is room; models first. A name without room is left to the notes.

    Args:
        axes: where.
        systems: whose names.
        known: name -> its values.
        points: name -> where its marker stands; at the edge the values that lie beyond are written, too.
    """
    figure = axes.figure
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    centres = [axes.transData.transform(point) for point in points.values()]
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in centres]
    whole = axes.get_window_extent(renderer)
    for system in sorted(systems, key=lambda each: each.baseline):
        for dx, dy, horizontal, vertical in (
            (8, 0, "left", "center"),
            (-8, 0, "right", "center"),
            (0, 8, "center", "bottom"),
            (0, -8, "center", "top"),
            (6, 6, "left", "bottom"),
            (-6, -6, "right", "top"),
            (-6, 6, "right", "bottom"),
            (6, -6, "left", "top"),
        ):
            places = zip(known[system.name], points[system.name], strict=True)
            beyond = [number(value) for value, place in places if value != place]
            label = axes.annotate(
                plain(system.name, 20) + (f" ({', '.join(beyond)})" if beyond else ""),
                points[system.name],
                (dx, dy),
                textcoords="offset points",
                ha=horizontal,
                va=vertical,
                size=8,
                color=MUTED if system.baseline else None,
            )
            box = label.get_window_extent(renderer)
            inside = box.x0 >= whole.x0 and box.x1 <= whole.x1 + 6 and box.y0 >= whole.y0 and box.y1 <= whole.y1
            if inside and not any(
                box.x0 < right and left < box.x1 and box.y0 < top and bottom < box.y1
                for left, bottom, right, top in taken
            ):
                taken.append((box.x0, box.y0, box.x1, box.y1))
                break
            label.remove()
