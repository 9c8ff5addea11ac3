"""The panel that a terminal shows while a training runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.segment import Segment, SegmentLines
from rich.table import Column, Table
from rich.text import Text

from recalign.console import label
from recalign.training.speed import PARTS
from recalign.training.standing import Standing

WIDEST, FRAME = 100, 4
"""Columns of the panel at most, and those that its frame takes."""
LIST_WIDTH, VALUE, CURVE = 26, 8, 24
"""Columns of a sample list and of a value at least, and of a curve at most."""
SMALL, ROOMY = 40, 72
"""Columns from which there is room for the best values, and for curves."""
HEADLINES = ("reward", "loss")
"""Figures of training that have a line of their own, where they are logged."""
SHOWN = 0.005
"""Share of a step from which one of its parts is told."""
BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class TrainingPanel:
    """Renders a training as it stands, in as many lines and columns as the terminal has.

    What has no room is left out: first further figures, then the seconds of each part, then the sample lists.

    Args:
        standing: returns what is to be shown, whenever it is shown.
        clock: returns the time, as `time.monotonic` does.
    """

    standing: Callable[[], Standing]
    clock: Callable[[], float] = time.monotonic

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Yield the panel; called by rich."""
        standing, width = self.standing(), min(options.max_width, WIDEST)
        columns = max(width - FRAME, 1)
        inner = options.update(width=columns, height=None)
        parts = {
            "progress": _progress(standing, self.clock()),
            "figures": _figures(standing, columns, curves=not options.ascii_only),
            "speed": _speed(standing, columns),
            "parts": _parts(standing, columns),
            "others": _others(standing, columns),
            "lists": _lists(standing, columns, "*" if options.ascii_only else "✓"),
        }
        lines: dict[str, list[list[Segment]]] = {}
        room = options.size.height - 3  # the frame's two, and the one that the cursor is on
        for name in ("progress", "figures", "speed", "lists", "parts", "others"):
            part = parts[name]
            rendered = [] if part is None else console.render_lines(part, inner, pad=False)
            if len(rendered) <= room:
                lines[name] = rendered
                room -= len(rendered)
        kept = [line for name in parts for line in lines.get(name, ())]
        yield Panel(
            SegmentLines(kept, new_lines=True),
            title=Text(label(standing.title), overflow="ellipsis", no_wrap=True),
            title_align="left",
            width=width,
        )


def curve(values: Sequence[float], width: int) -> str:
    """Draw values as bars of eight heights, from the lowest to the highest one; several share a bar where they must.

    Args:
        values: one or more finite numbers.
        width: of the drawing at most.
    """
    means = [float(np.mean(part)) for part in np.array_split(np.asarray(values), min(width, len(values)))]
    low, high = min(means), max(means)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] for value in means)


def _progress(standing: Standing, now: float) -> RenderableType:
    left = standing.left(now)
    done = standing.updates >= standing.total
    told = [f"{_clock(standing.elapsed(now))} so far"]
    told += [] if done or left is None else [f"{_clock(left)} left"]
    told += [standing.activity] if standing.activity else []
    grid = Table.grid(Column(no_wrap=True), Column(ratio=1), Column(no_wrap=True), padding=(0, 1), expand=True)
    grid.add_row(
        f"update {standing.updates:,} of {standing.total:,}",
        ProgressBar(total=max(standing.total, 1), completed=standing.updates),
        f"{standing.updates / max(standing.total, 1):.0%}",
    )
    return Group(grid, Text(", ".join(told), overflow="ellipsis", no_wrap=True))


def _figures(standing: Standing, width: int, *, curves: bool) -> RenderableType | None:
    """Draw a line a figure: the newest value, that of validation beside the best one."""
    grid = Table.grid(
        Column(no_wrap=True, overflow="ellipsis"),
        Column(justify="right", no_wrap=True, min_width=VALUE),
        Column(no_wrap=True, overflow="ellipsis"),
        Column(no_wrap=True),
        padding=(0, 2),
    )
    kept = 2 + (width >= SMALL) + (curves and width >= ROOMY)  # columns
    del grid.columns[kept:]

    def add(name: str, course: Sequence[tuple[int, float]], best: str, style: str) -> None:
        values = [value for _, value in course]
        cells = (Text(name, style), _number(values[-1]), Text(best, style), curve(values, CURVE))
        grid.add_row(*cells[:kept])

    for name in HEADLINES:
        if name in standing.figures:
            add(name, list(standing.courses[name]), "", "")
    for name, course in standing.validations.items():
        update, value = standing.best(name)
        style = "bold" if name == standing.best_on else ""
        add(f"valid {name}", list(course), f"best {_number(value)} at {update:,}", style)
    return grid if grid.row_count else None


def _speed(standing: Standing, width: int) -> RenderableType | None:
    figures = standing.figures
    if "rows_per_second" not in figures:
        return None
    told = (
        f"{figures['rows_per_second']:,.1f} rows/s",
        f"{figures['tokens_per_second']:,.0f} tokens/s",
        f"{figures['seconds_per_update']:.3g} s a step",
        f"{figures['peak_memory_mb']:,.0f} MB",
    )
    return _line(told, width)


def _parts(standing: Standing, width: int) -> RenderableType | None:
    """Tell the share of each part of a step."""
    seconds = {part: standing.figures.get(f"seconds_{part}", 0.0) for part in PARTS}
    total = sum(seconds.values())
    if not total:
        return None
    return _line(
        ["a step:", *(f"{part} {value / total:.0%}" for part, value in seconds.items() if value / total >= SHOWN)],
        width,
    )


def _others(standing: Standing, width: int) -> RenderableType | None:
    """Tell what else is logged, such as the learning rate and diagnostics."""
    told = {*HEADLINES, "rows_per_second", "tokens_per_second", "rows_per_update", "peak_memory_mb", "pass_tokens"}
    names = [name for name in standing.figures if name not in told and not name.startswith("seconds_")]
    return _line([f"{name} {_number(standing.figures[name])}" for name in names], width, "dim") if names else None


def _lists(standing: Standing, width: int, mark: str) -> RenderableType | None:
    """Lay the sample lists side by side, as many as there is room for, hits marked."""
    samples = standing.samples[: max(width // LIST_WIDTH, 1)]
    if not samples:
        return None
    heading = f"lists after update {standing.sampled_at:,}, {mark} what the user chose"
    grid = Table.grid(*(Column(ratio=1, no_wrap=True, overflow="ellipsis") for _ in samples), expand=True)
    grid.padding = (0, 1)
    grid.add_row(*(_list(sample, mark) for sample in samples))
    return Group("", Text(heading, "italic", overflow="ellipsis", no_wrap=True), grid)


def _list(sample: Mapping[str, Any], mark: str) -> RenderableType:
    lines = [Text(f"user {label(sample['user_id'])}", "bold")]
    if sample["history"]:
        lines.append(Text(f"after {label(sample['history'][-1])}", "dim"))
    for entry in sample["recommended"]:
        title = label(entry["title"]) if entry["title"] is not None else "(no item)"
        hit = entry["hit"]
        lines.append(Text(f"{entry['rank']} {mark if hit else ' '} {title}", "bold green" if hit else ""))
    if sample["missed"]:
        lines.append(Text(f"{len(sample['missed'])} missed: {label(sample['missed'][0])}", "dim"))
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return Group(*lines)


def _line(texts: Sequence[str], width: int, style: str = "") -> Text:
    """Join texts to a line, or to several that break between them."""
    lines = [""]
    for text in texts:
        longer = f"{lines[-1]}  {text}" if lines[-1] else text
        lines[-1:] = [longer] if len(longer) <= width or not lines[-1] else [lines[-1], text]
    return Text("\n".join(lines), style, no_wrap=True, overflow="ellipsis")


def _number(value: float) -> str:
    return f"{value:.4g}"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
