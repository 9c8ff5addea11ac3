"""Figures of analyses: parts of the rows, levels of a variation with the ranks that targets get, spread of draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recalign.comparison.analyses import Analyses
from recalign.comparison.analyses.groups import GroupResult
from recalign.comparison.analyses.tables import ranks_text, together
from recalign.comparison.analyses.varied import VariationResult
from recalign.comparison.figures import INK, Drawn, Look, arrow, draw, legend, looks, mark, plain
from recalign.comparison.systems import Comparison
from recalign.evaluation.tables import figure, number
from recalign.variations import KINDS

WIDE = 9.4  # inches: the whole page
MANY = 8
"""Marks beside each other from which on a figure takes the whole page."""
SPREAD = 0.7
"""Share of the room between two parts that the systems' marks take."""


def draw_analyses(analyses: Analyses, comparison: Comparison) -> list[Drawn]:
    """Draw every partition, every variation's values and, of levels, the ranks of the targets."""
    look = looks(comparison.systems, comparison.reference)
    better = comparison.higher_is_better
    found = [_groups(each, look, better.get(each.metric)) for each in analyses.groups]
    ranked: set[str] = set()
    for results in together(analyses.variations):
        first = results[0]
        if KINDS[first.variation].exchangeable:
            found.append(_draws(results, look, better.get(first.metric)))
            continue
        found.append(_levels(results, look, better.get(first.metric)))
        if first.variation not in ranked:  # ranks are the same whatever the metric
            ranked.add(first.variation)
            found.append(_ranks(results, look))
    return found


def _groups(result: GroupResult, look: Mapping[str, Look], better: bool | None) -> Drawn:
    """Draw the systems' means, with 95% intervals, beside each other in every part."""
    names = [cell.system for cell in result.parts[0].systems]
    offsets = _offsets(len(names))

    def paint(axes: Any) -> Mapping[str, str]:
        notes = {}
        for i, part in enumerate(result.parts):
            for j, cell in enumerate(part.systems):
                if cell.mean.mean is None:
                    continue
                x, gid = i + offsets[j], f"part-{i}-{j}"
                axes.plot([x, x], [cell.mean.low, cell.mean.high], color=look[cell.system].colour, linewidth=1.6)
                mark(axes, x, cell.mean.mean, look[cell.system], gid=gid, size=5.0)
                notes[gid] = f"{cell.system}, {part.label} ({part.rows} rows): {figure(cell.mean)}"
        axes.set_xticks(range(len(result.parts)), [f"{part.label}\n{part.rows} rows" for part in result.parts])
        axes.set_xlim(-0.6, len(result.parts) - 0.4)
        axes.set_xlabel(result.counts)
        axes.set_ylabel(result.metric + arrow(better))
        axes.grid(axis="x", visible=False)
        legend(axes, {name: look[name] for name in names})
        return notes

    text = f"{result.metric}, {result.title}: " + "; ".join(
        f"{part.label}: " + ", ".join(f"{cell.system} {number(cell.mean.mean)}" for cell in part.systems)
        for part in result.parts
    )
    title = f"{result.metric}: {result.title}, 95% interval"
    width = {"width": WIDE} if len(names) * len(result.parts) > MANY else {}
    return draw(f"{result.analysis}-{result.metric}", title, text, paint, **width)


def _levels(results: Sequence[VariationResult], look: Mapping[str, Look], better: bool | None) -> Drawn:
    """Draw each system's mean over the values, with 95% intervals; what it reaches as it is stands at the right."""
    kind, metric = KINDS[results[0].variation], results[0].metric
    values = _values(results)
    offsets = 0.5 * _offsets(len(results))

    def paint(axes: Any) -> Mapping[str, str]:
        notes = {}
        for j, told in enumerate(results):
            own = look[told.system]
            points = [(values.index(each.value), str(each.value), each.mean) for each in told.values]
            axes.plot(
                [place + offsets[j] for place, _, _ in points],
                [interval.mean for _, _, interval in points],
                color=own.colour,
                linestyle=own.line,
            )
            for place, name, interval in [*points, (len(values), "as it is", told.as_it_is)]:
                x, gid = place + offsets[j], f"level-{j}-{place}"
                axes.plot([x, x], [interval.low, interval.high], color=own.colour, linewidth=1.4)
                mark(axes, x, interval.mean or 0.0, own, gid=gid, size=5.0)
                notes[gid] = f"{told.system}, {kind.heading} {name}: {figure(interval)}"
        axes.set_xticks(range(len(values) + 1), [*map(str, values), "as it is"])
        axes.set_xlabel(kind.heading)
        axes.set_ylabel(metric + arrow(better))
        axes.grid(axis="x", visible=False)
        legend(axes, {told.system: look[told.system] for told in results})
        return notes

    text = f"{metric}, {kind.title}: " + "; ".join(
        f"{told.system}: " + ", ".join(f"{each.value}: {number(each.mean.mean)}" for each in told.values)
        for told in results
    )
    return draw(f"{kind.name}-{metric}", f"{metric}: {kind.title}, 95% interval", text, paint)


def _ranks(results: Sequence[VariationResult], look: Mapping[str, Look]) -> Drawn:
    """Draw the quartiles of the ranks that targets get at every value."""
    kind, values, offsets = KINDS[results[0].variation], _values(results), _offsets(len(results))

    def paint(axes: Any) -> Mapping[str, str]:
        notes = {}
        for j, told in enumerate(results):
            for each in told.values:
                low, middle, high = each.ranks.quartiles
                x, gid = values.index(each.value) + offsets[j], f"rank-{j}-{each.value}"
                if low is not None and high is not None:
                    axes.plot([x, x], [low, high], color=look[told.system].colour, linewidth=4, alpha=0.5)
                if middle is not None:
                    mark(axes, x, middle, look[told.system], gid=gid, size=5.0)
                    notes[gid] = f"{told.system}, {kind.heading} {each.value}: ranks {ranks_text(each.ranks)}"
        axes.set_xticks(range(len(values)), list(map(str, values)))
        axes.invert_yaxis()
        axes.set_xlabel(kind.heading)
        axes.set_ylabel("rank of the target")
        axes.grid(axis="x", visible=False)
        legend(axes, {told.system: look[told.system] for told in results})
        return notes

    text = f"Quartiles of the target's rank, {kind.title}: " + "; ".join(
        f"{told.system}: " + ", ".join(f"{each.value}: {ranks_text(each.ranks)}" for each in told.values)
        for told in results
    )
    return draw(f"{kind.name}-ranks", f"{kind.title}: median and middle half of the target's rank", text, paint)


def _draws(results: Sequence[VariationResult], look: Mapping[str, Look], better: bool | None) -> Drawn:
    """Draw the mean of every draw on a line for each system, and what it reaches as it is."""
    kind, metric = KINDS[results[0].variation], results[0].metric

    def paint(axes: Any) -> Mapping[str, str]:
        notes = {}
        for place, told in enumerate(results):
            own = look[told.system]
            for each in told.values:
                mark(axes, each.mean.mean or 0.0, place, own, size=3.5, gid=f"draw-{place}-{each.value}")
                notes[f"draw-{place}-{each.value}"] = f"{told.system}, {kind.heading} {each.value}: {figure(each.mean)}"
            axes.plot([told.as_it_is.mean] * 2, [place - 0.3, place + 0.3], color=INK, linewidth=1.6, gid=f"as-{place}")
            notes[f"as-{place}"] = f"{told.system}, as it is: {figure(told.as_it_is)}"
        axes.set_yticks(range(len(results)), [plain(told.system) for told in results])
        axes.set_ylim(len(results) - 0.4, -0.6)
        axes.set_xlabel(metric + arrow(better))
        axes.grid(axis="y", visible=False)
        return notes

    text = f"{metric}, {kind.title}: " + "; ".join(
        f"{told.system} as it is {number(told.as_it_is.mean)}, {len(told.values)} {kind.heading}s from "
        f"{number(told.spread.low)} to {number(told.spread.high)}"
        for told in results
    )
    title = f"{metric}: {kind.title}, means; the line: as it is"
    return draw(f"{kind.name}-{metric}", title, text, paint, height=0.9 + 0.32 * len(results))


def _values(results: Sequence[VariationResult]) -> list[int]:
    """Return every value that some system answered, in ascending order."""
    return sorted({each.value for told in results for each in told.values})


def _offsets(count: int) -> np.ndarray:
    """Return where marks stand beside each other, around 0."""
    return (np.arange(count) - (count - 1) / 2) * (SPREAD / max(count, 1))
