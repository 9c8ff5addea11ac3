"""Training curves of the runs behind a comparison, read from their logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recalign.comparison.figures import Drawn, draw, legend, looks, plain
from recalign.comparison.systems import Comparison
from recalign.comparison.trail import Trail, read_log

TITLES = {
    "eval_reward": "Validation reward",
    "reward": "Reward of sampled lists",
    "kl": "KL to the reference policy (nats)",
    "entropy": "Entropy (nats a decision)",
    "advantage": "Mean |advantage|",
    "zero_variance": "Zero-variance groups (share)",
    "saturation": "Lists above R_max (share)",
    "eval_metric": "Validation metric",
    "eval_loss": "Validation loss",
    "loss": "Training loss",
}
"""Figure of the log -> what it is, in the order of the page; `loss` is shown of supervised training only."""
MANY = 4
"""Runs of a system from which on the middle half of them is shown as a band, in place of a line for each."""
POINTS = 40
"""Points a line at most: more of them are averaged, so that the trend shows and the page stays small."""


@dataclass(frozen=True)
class Curve:
    """One figure of one run.

    Args:
        system: whose run it is.
        run: which one, such as its folder.
        steps: [n] updates.
        values: [n].
    """

    system: str
    run: str
    steps: np.ndarray
    values: np.ndarray


def read_curves(comparison: Comparison, trails: Mapping[str, Sequence[Trail]]) -> dict[str, list[Curve]]:
    """Read the logs of the runs whose models were compared: figure -> a curve a run, of those with two points or more.

    Args:
        comparison: names the systems.
        trails: system -> trails of its runs.
    """
    curves: dict[str, list[Curve]] = {}
    for system in comparison.systems:
        for trail in trails.get(system.name, ()):
            if not trail.training:
                continue
            log = read_log(trail.training[-1])
            online = any("reward" in line for line in log)
            for name in TITLES:
                points = [(line["step"], line[name]) for line in log if isinstance(line.get(name), int | float)]
                if len(points) > 1 and not (name == "loss" and online):
                    steps, values = np.array(points, dtype=np.float64).T
                    curves.setdefault(name, []).append(
                        Curve(system.name, str(trail.training[-1].folder), steps, values)
                    )
    return {name: curves[name] for name in TITLES if name in curves}


def thinned(steps: np.ndarray, values: np.ndarray, points: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Average neighbouring points of a curve in blocks of one size, the last one perhaps smaller: at most [points]."""
    size = -(-len(steps) // points)
    starts = np.arange(0, len(steps), max(size, 1))
    counts = np.diff(np.append(starts, len(steps)))
    return np.add.reduceat(steps, starts) / counts, np.add.reduceat(values, starts) / counts


def gathered(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Put several runs side by side at the steps that all of them logged, thinned: [n], [runs, n]; n may be 0."""
    common = set(curves[0].steps).intersection(*(curve.steps for curve in curves))
    steps = np.array(sorted(common))
    if not len(steps):
        return steps, np.zeros((len(curves), 0))
    thin = [thinned(steps, curve.values[np.isin(curve.steps, steps)]) for curve in curves]
    return thin[0][0], np.array([values for _, values in thin])


def training_curves(comparison: Comparison, name: str, curves: Sequence[Curve]) -> Drawn:
    """Draw one figure of all runs: the mean of each system's runs, and how they scatter."""
    look = looks(comparison.systems, comparison.reference)
    systems = list(dict.fromkeys(curve.system for curve in curves))

    def paint(axes: Any) -> Mapping[str, str]:
        notes = {}
        for place, system in enumerate(systems):
            own = [curve for curve in curves if curve.system == system]
            steps, values = gathered(own)
            if len(own) >= MANY and len(steps):
                low, high = np.quantile(values, [0.25, 0.75], axis=0)
                axes.fill_between(steps, low, high, color=look[system].colour, alpha=0.13, linewidth=0)
            for curve in own if 1 < len(own) < MANY else ():
                axes.plot(*thinned(curve.steps, curve.values), color=look[system].colour, linewidth=0.7, alpha=0.45)
            line = "-" if look[system].line == "--" else look[system].line
            mean = values.mean(axis=0)
            axes.plot(steps, mean, color=look[system].colour, linestyle=line, linewidth=1.7, gid=f"run-{place}")
            what = f"mean of {len(own)} runs" if len(own) > 1 else "one run"
            ends = f", {mean[0]:.4g} to {mean[-1]:.4g}" if len(mean) else ""
            notes[f"run-{place}"] = f"{system}, {what}{ends}"
        axes.set_xlabel("updates")
        axes.set_ylabel(plain(TITLES[name], 40))
        legend(axes, {system: look[system] for system in systems}, limit=8)
        return notes

    text = f"{TITLES[name]} over updates, first and last: " + "; ".join(
        f"{curve.system} {curve.values[0]:.4g}, {curve.values[-1]:.4g}" for curve in curves[:40]
    )
    return draw(f"training-{name}", TITLES[name], text, paint, height=2.7)
