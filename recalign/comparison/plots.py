"""Figures of the means and of single users: intervals, wins and losses, sorted differences, sweeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from recalign.comparison.figures import INK, MUTED, Drawn, arrow, draw, legend, looks, mark, plain
from recalign.comparison.sweeps import Sweep
from recalign.comparison.systems import Comparison
from recalign.evaluation.tables import figure, number, p_text, signed

ROW = 0.27  # inches a system


def ranked(comparison: Comparison, metric: str) -> list[str]:
    """Name the systems that have the metric, the best first; in the order given where no direction is better."""
    means = {s.name: s.summary[metric].mean for s in comparison.systems}
    known = [name for name, mean in means.items() if mean is not None]
    better = comparison.higher_is_better.get(metric)
    return known if better is None else sorted(known, key=lambda name: means[name] or 0.0, reverse=better)


def intervals(comparison: Comparison, metric: str) -> Drawn:
    """Draw every system's mean with its 95% interval, the best on top, the reference as a line."""
    names = ranked(comparison, metric)
    by_name = {system.name: system for system in comparison.systems}
    look = looks(comparison.systems, comparison.reference)
    labels = [by_name[name].name + (" (oracle)" if by_name[name].oracle else "") for name in names]

    def paint(axes: Any) -> Mapping[str, str]:
        notes = {}
        for place, (name, label) in enumerate(zip(names, labels, strict=True)):
            interval = by_name[name].summary[metric]
            axes.plot([interval.low, interval.high], [place, place], color=look[name].colour, linewidth=2)
            mark(axes, interval.mean or 0.0, place, look[name], gid=f"mean-{place}")
            notes[f"mean-{place}"] = f"{label}: {figure(interval)}"
            if name == comparison.reference:
                axes.axvline(interval.mean or 0.0, color=INK, linewidth=0.8, linestyle=":", zorder=1)
        axes.set_yticks(range(len(names)), [plain(label) for label in labels])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.locator_params(axis="x", nbins=7)
        axes.set_xlabel(_directed(comparison, metric))
        axes.grid(axis="y", visible=False)
        return notes

    text = f"{metric}: " + "; ".join(f"{name} {figure(by_name[name].summary[metric])}" for name in names)
    return draw(f"intervals-{metric}", f"{metric}: mean, 95% interval", text, paint, height=0.7 + ROW * len(names))


def forest(comparison: Comparison, metric: str) -> Drawn:
    """Draw every system's paired difference to the reference with its 95% interval, in the order of `intervals`."""
    names = ranked(comparison, metric)
    look = looks(comparison.systems, comparison.reference)
    tests = {name: comparison.tests[name][metric] for name in names if name in comparison.tests}
    tests = {name: test for name, test in tests.items() if test.difference.n}

    def paint(axes: Any) -> Mapping[str, str]:
        notes = {}
        for place, name in enumerate(names):
            if name in tests:
                found = tests[name].difference
                axes.plot([found.low, found.high], [place, place], color=look[name].colour, linewidth=2)
                mark(axes, found.mean or 0.0, place, look[name], gid=f"difference-{place}")
                adjusted = p_text(comparison.adjusted[name][metric])
                notes[f"difference-{place}"] = f"{name}: {signed(found)}, p (Holm) {adjusted}"
        axes.axvline(0, color=INK, linewidth=0.8, linestyle=":", zorder=1)
        axes.locator_params(axis="x", nbins=6)
        axes.set_yticks(range(len(names)), [plain(name) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlabel(f"{metric} - {plain(comparison.reference, 18)}")
        axes.grid(axis="y", visible=False)
        return notes

    text = f"Differences in {metric} to {comparison.reference}: " + "; ".join(
        f"{name} {signed(test.difference)}" for name, test in tests.items()
    )
    title = f"Paired difference to {comparison.reference}, 95% interval"
    return draw(f"differences-{metric}", title, text, paint, height=0.7 + ROW * len(names))


def wins(comparison: Comparison, metric: str) -> Drawn:
    """Draw the shares of users for whom each system is better and worse than the reference."""
    better = comparison.higher_is_better.get(metric)
    look = looks(comparison.systems, comparison.reference)
    tests = [(name, comparison.tests[name][metric]) for name in ranked(comparison, metric) if name in comparison.tests]
    tests = [(name, test) for name, test in tests if test.difference.n]
    users = {name: comparison_users(comparison, name, metric) for name, _ in tests}

    def paint(axes: Any) -> Mapping[str, str]:
        notes = {}
        for place, (name, test) in enumerate(tests):
            up, down = (test.losses, test.wins) if better is False else (test.wins, test.losses)
            total = max(users[name], 1)
            for side, count in (("up", up), ("down", -down)):
                colour = look[name].colour if side == "up" else MUTED
                axes.barh(place, count / total, color=colour, height=0.62, alpha=1 if side == "up" else 0.55)
                axes.text(
                    count / total, place, f" {abs(count)} ", va="center", ha="left" if side == "up" else "right", size=8
                )
            axes.patches[-2].set_gid(f"wins-{place}")
            notes[f"wins-{place}"] = f"{name}: {up} users better, {down} worse, {total - up - down} alike"
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(range(len(tests)), [plain(name) for name, _ in tests])
        axes.set_ylim(len(tests) - 0.4, -0.6)
        axes.margins(x=0.18)
        axes.xaxis.set_major_formatter(lambda share, _: f"{abs(share):.0%}")
        words = ("lower", "higher") if better is None else ("worse", "better")
        axes.set_xlabel(f"users {words[0]}  ←  {metric}  →  users {words[1]}")
        axes.grid(axis="y", visible=False)
        return notes

    text = f"Users with a better and a worse {metric} than {comparison.reference}: " + "; ".join(
        f"{name} {test.wins} higher, {test.losses} lower" for name, test in tests
    )
    title = f"{metric}: users better and worse than with {comparison.reference}"
    return draw(f"wins-{metric}", title, text, paint, height=0.75 + ROW * len(tests))


def comparison_users(comparison: Comparison, name: str, metric: str) -> int:
    """Count the users for whom a system and the reference both have the metric."""
    return len(user_differences(comparison, name, metric))


def user_differences(comparison: Comparison, name: str, metric: str) -> np.ndarray:
    """Mean difference of each user between a system and the reference, in ascending order: float64 [U]."""
    frames = {system.name: system.frame for system in comparison.systems}
    one, two = frames[comparison.reference], frames[name]
    table = one.select("user_id").with_columns((two[metric] - one[metric]).alias("difference")).drop_nulls()
    return table.group_by("user_id").mean()["difference"].sort().to_numpy()


def differences(comparison: Comparison, metric: str) -> Drawn:
    """Draw every model's differences to the reference, user by user, sorted: who gains, who loses, and how much."""
    look = looks(comparison.systems, comparison.reference)
    models = [s.name for s in comparison.systems if not s.baseline and s.name in comparison.tests]
    sorted_ = {name: user_differences(comparison, name, metric) for name in models}
    sorted_ = {name: values for name, values in sorted_.items() if len(values)}

    def paint(axes: Any) -> Mapping[str, str]:
        notes = {}
        for place, (name, values) in enumerate(sorted_.items()):
            shares = (np.arange(len(values)) + 0.5) / len(values)
            axes.step(
                shares, values, color=look[name].colour, linestyle=look[name].line, where="mid", gid=f"user-{place}"
            )
            notes[f"user-{place}"] = name
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        axes.set_xlabel("users, sorted by their difference")
        axes.set_ylabel(f"{metric} - {plain(comparison.reference, 18)}")
        legend(axes, {name: look[name] for name in sorted_})
        return notes

    text = f"Differences in {metric} to {comparison.reference}, user by user, in ascending order, for each model."
    return draw(f"users-{metric}", f"{metric}: differences user by user", text, paint, height=2.9)


def sweep(comparison: Comparison, found: Sweep, metric: str) -> Drawn:
    """Draw a metric over the values of a swept parameter, with intervals; the reference as a line."""
    by_name = {system.name: system for system in comparison.systems}
    look = looks(comparison.systems, comparison.reference)
    points = [
        (value, by_name[name])
        for value, name in zip(found.values, found.systems, strict=True)
        if by_name[name].summary[metric].mean is not None
    ]

    def paint(axes: Any) -> Mapping[str, str]:
        notes = {}
        values = [value for value, _ in points]
        axes.plot(values, [system.summary[metric].mean for _, system in points], color=MUTED, zorder=1)
        for place, (value, system) in enumerate(points):
            interval = system.summary[metric]
            axes.plot([value, value], [interval.low, interval.high], color=look[system.name].colour, linewidth=1.6)
            mark(axes, value, interval.mean or 0.0, look[system.name], gid=f"value-{place}")
            notes[f"value-{place}"] = f"{system.name}, {found.parameter} = {value:g}: {figure(system.summary[metric])}"
        reference = by_name[comparison.reference].summary[metric].mean
        if reference is not None and comparison.reference not in found.systems:
            axes.axhline(reference, color=INK, linewidth=0.8, linestyle=":")
            axes.annotate(
                plain(comparison.reference, 18),
                (1.01, reference),
                xycoords=("axes fraction", "data"),
                size=8,
                va="center",
            )
        if min(values) > 0 and max(values) / min(values) >= 8:
            axes.set_xscale("log")
        axes.margins(x=0.08)
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.minorticks_off()
        axes.set_xlabel(found.parameter)
        axes.set_ylabel(_directed(comparison, metric))
        return notes

    text = f"{metric} over {found.parameter}: " + "; ".join(
        f"{value:g}: {number(system.summary[metric].mean)}" for value, system in points
    )
    name = f"sweep-{found.parameter}-{found.systems[0]}-{metric}"
    return draw(name, f"{metric} over {found.parameter}", text, paint, height=2.7)


def _directed(comparison: Comparison, metric: str) -> str:
    return metric + arrow(comparison.higher_is_better.get(metric))
