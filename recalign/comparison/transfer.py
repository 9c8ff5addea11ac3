"""Transfer: models trained on some datasets, measured on these and others, each against the one trained there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from recalign.comparison.evaluations import Evaluation
from recalign.comparison.figures import MARKERS, SERIES, Drawn, Look, arrow, draw, legend, mark
from recalign.comparison.gallery import write_figures
from recalign.comparison.report import Grid, grids_to_latex, grids_to_markdown, main_metrics
from recalign.comparison.systems import Comparison, compare
from recalign.comparison.trail import trail_of
from recalign.errors import UserError
from recalign.evaluation.significance import Interval, Paired, holm
from recalign.evaluation.tables import ALIKE, figure, p_text, share, signed
from recalign.workspace import atomic, write_json

UNKNOWN = "untrained"
FILES = ("transfer.json", "transfer.md", "transfer.tex", "figures")
CAPTION = (
    "95% bootstrap intervals over users; bold: the model that was trained there; of the others also the difference to "
    "that one (* its interval leaves out zero), p of the paired Wilcoxon signed-rank test over users, corrected within "
    f"a table (Holm); {ALIKE}."
)
HINT = "Decode each model on each dataset with `recalign decode --data OTHER`, evaluate, and name all evaluations."


@dataclass(frozen=True)
class TransferCell:
    """What one model reaches on one dataset.

    Args:
        trained: where, by the row's name.
        measured: where, by the dataset's name.
        rows: of that dataset.
        mean: with its interval.
        home: whether the model was trained there.
        test: it - the model of the same name that was trained there; None for that one, or where there is none.
        p_holm: p after Holm's correction over the whole table; None likewise.
    """

    trained: str
    measured: str
    rows: int
    mean: Interval
    home: bool
    test: Paired | None = None
    p_holm: float | None = None


@dataclass(frozen=True)
class TransferTable:
    """All models on all datasets, by one metric; a model that was not measured somewhere has no cell there."""

    metric: str
    higher_is_better: bool | None
    trained: tuple[str, ...]
    measured: tuple[str, ...]
    cells: tuple[TransferCell, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON files hold of it."""
        tests = [None if cell.test is None else cell.test.as_dict() for cell in self.cells]
        cells = [{**asdict(cell), "test": test} for cell, test in zip(self.cells, tests, strict=True)]
        return {**asdict(self), "cells": cells}


def transfer_tables(
    runs: Sequence[Evaluation], metrics: Sequence[str] | None = None, seed: int = 0
) -> list[TransferTable]:
    """Measure what models reach on datasets that they were not trained on.

    Args:
        runs: evaluations; runs of one label, one training dataset and one measured dataset are seeds, and averaged.
        metrics: names; by default the main ones of those that every run has.
        seed: of the bootstrap.

    Raises:
        UserError: all runs are measured on one dataset; an unknown metric; runs of one dataset answer other rows.
    """
    measured = _named({run.measured_hash: str(run.results["data"].get("path")) for run in runs})
    if len(measured) < 2:
        raise UserError(f"--transfer: all {len(runs)} runs are measured on {next(iter(measured.values()))}.", HINT)
    sources = {run.data_hash: measured[run.measured_hash] for run in runs}
    several = len({run.label for run in runs}) > 1
    columns: dict[str, Comparison] = {}
    for data in measured:
        groups: dict[str, list[Evaluation]] = {}
        for run in runs:
            if run.measured_hash == data:
                groups.setdefault(_row(run, sources, several), []).append(run)
        columns[data] = compare(groups, metrics=metrics, seed=seed)
    shared = [
        name for name in next(iter(columns.values())).metrics if all(name in each.metrics for each in columns.values())
    ]
    order = list(sources)  # lines in the order of the columns, so that those trained there form the diagonal
    place = {
        _row(run, sources, several): order.index(t) if (t := trained_on(run)) in order else len(order) for run in runs
    }
    rows = tuple(sorted(place, key=lambda row: place[row]))
    return [
        _table(columns, measured, rows, metric, seed)
        for metric in (main_metrics(shared) if metrics is None else metrics)
    ]


def trained_on(run: Evaluation) -> str:
    """Return the hash of the dataset that an evaluated model was trained on; UNKNOWN where no run says."""
    trail = trail_of(run)
    steps = (*trail.training, *([trail.predictions] if trail.predictions else []))
    made = [step for step in steps if step.command != "decode"]
    return str(made[-1].record.get("inputs", {}).get("data", UNKNOWN)) if made else UNKNOWN


def transfer_grid(table: TransferTable) -> Grid:
    """Lay a table out: a line for every model, a column for every dataset; bold: the model that was trained there."""
    cells = {(cell.trained, cell.measured): cell for cell in table.cells}
    lines = [(row, *(_text(cells.get((row, column))) for column in table.measured)) for row in table.trained]
    bold = frozenset(
        (i, j + 1)
        for i, row in enumerate(table.trained)
        for j, column in enumerate(table.measured)
        if (row, column) in cells and cells[row, column].home
    )
    return Grid(f"{table.metric}: trained on (lines), measured on (columns)", ("", *table.measured), tuple(lines), bold)


def draw_transfer(table: TransferTable) -> Drawn:
    """Draw the models' means, with 95% intervals, beside each other on every dataset; hollow: trained elsewhere."""

    def paint(axes: Any) -> Mapping[str, str]:
        notes = {}
        for cell in table.cells:
            row, column = table.trained.index(cell.trained), table.measured.index(cell.measured)
            look = replace(_look(row), hollow=not cell.home)
            x, gid = column + (row - (len(table.trained) - 1) / 2) * 0.6 / len(table.trained), f"cell-{row}-{column}"
            axes.plot([x, x], [cell.mean.low, cell.mean.high], color=look.colour, linewidth=1.6)
            mark(axes, x, cell.mean.mean or 0.0, look, gid=gid)
            notes[gid] = f"{cell.trained} on {cell.measured}: {figure(cell.mean)}"
        axes.set_xticks(range(len(table.measured)), list(table.measured))
        axes.set_xlim(-0.6, len(table.measured) - 0.4)
        axes.set_xlabel("measured on")
        axes.set_ylabel(table.metric + arrow(table.higher_is_better))
        axes.grid(axis="x", visible=False)
        legend(axes, {name: _look(row) for row, name in enumerate(table.trained)})
        return notes

    text = "; ".join(f"{cell.trained} on {cell.measured}: {figure(cell.mean)}" for cell in table.cells)
    return draw(f"transfer-{table.metric}", f"{table.metric}: transfer, 95% interval", text, paint)


def write_transfer(tables: Sequence[TransferTable], folder: Path) -> list[Path]:
    """Write the tables as JSON, Markdown and LaTeX, and the figures; return their paths.

    Raises:
        UserError: the disk is full.
    """
    grids = [transfer_grid(table) for table in tables]
    write_json(folder / FILES[0], [table.as_dict() for table in tables])
    for name, text in ((FILES[1], grids_to_markdown(grids, CAPTION)), (FILES[2], grids_to_latex(grids, CAPTION))):
        with atomic(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    figures = write_figures([draw_transfer(table) for table in tables], folder / FILES[3])
    return [*(folder / name for name in FILES[:3]), *figures]


def _table(
    columns: Mapping[str, Comparison], names: Mapping[str, str], rows: tuple[str, ...], metric: str, seed: int
) -> TransferTable:
    """Gather the cells, test each against the home model of its column, and correct over all of them."""
    cells = []
    for data, comparison in columns.items():
        systems = {system.name: system for system in comparison.systems if not system.baseline}
        homes = {name: _is_home(system.runs[0]) for name, system in systems.items()}
        for name, system in systems.items():
            label = system.runs[0].label
            home = next((each for each in systems if homes[each] and systems[each].runs[0].label == label), None)
            test = None
            if home is not None and home != name:
                pair = {each: list(systems[each].runs) for each in (home, name)}
                test = compare(pair, metrics=[metric], seed=seed).tests[name][metric]
            about = (name, names[data], system.frame.height, system.summary[metric], homes[name])
            cells.append(TransferCell(*about, test if test is not None and test.difference.n else None))
    tested = [place for place, cell in enumerate(cells) if cell.test is not None]
    adjusted = dict(zip(tested, holm([cells[place].test.p for place in tested]), strict=True))  # type: ignore[union-attr]
    cells = [replace(cell, p_holm=adjusted.get(place)) for place, cell in enumerate(cells)]
    better = next(iter(columns.values())).higher_is_better.get(metric)
    return TransferTable(metric, better, rows, tuple(names.values()), tuple(cells))


def _is_home(run: Evaluation) -> bool:
    return trained_on(run) == run.data_hash


def _row(run: Evaluation, sources: Mapping[str, str], several: bool) -> str:
    """Name a line by where its model was trained, and by its label where there are several."""
    trained = trained_on(run)
    name = sources.get(trained, trained)
    return f"{run.label}, {name}" if several else name


def _named(paths: Mapping[str, str]) -> dict[str, str]:
    """Name each dataset by its folder, or by its whole path where two folders have one name."""
    short = {key: Path(path).name for key, path in paths.items()}
    names = list(short.values())
    return {key: name if names.count(name) == 1 else paths[key] for key, name in short.items()}


def _look(row: int) -> Look:
    return Look(SERIES[row % len(SERIES)], MARKERS[row % len(MARKERS)], False)


def _text(cell: TransferCell | None) -> str:
    if cell is None:
        return "-"
    if cell.test is None or cell.p_holm is None:
        return figure(cell.mean)
    against = f"{signed(cell.test.difference)}, p (Holm) {p_text(cell.p_holm)}, alike {share(cell.test.tie_share)}"
    return f"{figure(cell.mean)}; {against}"
