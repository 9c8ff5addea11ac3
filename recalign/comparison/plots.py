"""The interval plot of a comparison."""

from __future__ import annotations

import io
from collections.abc import Sequence

from recalign.comparison.systems import Comparison


def interval_plot(comparison: Comparison, metrics: Sequence[str]) -> bytes:
    """Draw one panel a metric: every system's mean with its 95% interval, the reference as a line. PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    systems = comparison.systems
    figure = Figure(figsize=(1.5 + 4.5 * len(metrics), 0.9 + 0.32 * len(systems)), layout="constrained")
    canvas = FigureCanvasAgg(figure)  # no pyplot: nothing global, no display
    panels = figure.subplots(1, len(metrics), squeeze=False, sharey=True)[0]
    for panel, metric in zip(panels, metrics, strict=True):
        for place, system in enumerate(systems):
            interval = system.summary[metric]
            if interval.mean is None or interval.low is None or interval.high is None:
                continue
            colour = "tab:gray" if system.baseline else "tab:orange" if system.oracle else "tab:blue"
            panel.plot([interval.low, interval.high], [place, place], color=colour, linewidth=2)
            panel.plot([interval.mean], [place], "o", color=colour)
            if system.name == comparison.reference:
                panel.axvline(interval.mean, color="black", linewidth=0.8, linestyle=":")
        panel.set_xlabel(metric, parse_math=False)
        panel.grid(axis="x", alpha=0.3)
    names = [system.name + (" (oracle)" if system.oracle else "") for system in systems]
    panels[0].set_yticks(range(len(systems)), names, parse_math=False)
    panels[0].invert_yaxis()
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    return buffer.getvalue()
