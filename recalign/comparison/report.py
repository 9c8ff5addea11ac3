"""A comparison as tables: the same grids for the console, in Markdown and in LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recalign.comparison.aggregation import System
from recalign.comparison.systems import Comparison
from recalign.console import markdown
from recalign.evaluation.tables import ALIKE, figure, number, p_text, share, signed
from recalign.runs.cost import COLUMNS

if TYPE_CHECKING:
    from rich.table import Table

LATEX_ESCAPES = str.maketrans(
    {c: f"\\{c}" for c in "_%&#${}"}
    | {"\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}"}
    | {"|": r"\textbar{}", "<": r"\textless{}", ">": r"\textgreater{}"}
)
CAPTION = (
    f"95% bootstrap intervals over users; p: paired Wilcoxon signed-rank over users; {ALIKE}; p (Holm): corrected for "
    "the number of systems, models and baselines apart; * the interval of the difference leaves out zero."
)

WIDE = 10


@dataclass(frozen=True)
class Grid:
    """A table as text: `rows[i][j]` under `headings[j]`; `bold` holds the (i, j) to set in bold."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    bold: frozenset[tuple[int, int]] = frozenset()

    def turned(self) -> Grid:
        """Return the table with rows and columns exchanged."""
        names, *columns = zip(self.headings, *self.rows, strict=True)
        bold = frozenset((column - 1, row + 1) for row, column in self.bold)
        return Grid(self.title, tuple(names), tuple(columns), bold)


def grids(comparison: Comparison) -> list[Grid]:
    """Lay a comparison out: means of all metrics, differences in the main metrics, cost."""
    found = [
        means_grid(comparison),
        *(difference_grid(comparison, metric) for metric in main_metrics(comparison.metrics)),
    ]
    return [*found, *([cost_grid(comparison)] if any(system.cost for system in comparison.systems) else [])]


def main_metrics(metrics: Sequence[str]) -> list[str]:
    """Choose what gets a table: ndcg, recall (else hit) and pruning rate at 5 and 10, or else at their largest cutoff.

    Where none of them is measured, all metrics.
    """
    chosen = []
    families = [metric.partition("@")[0] for metric in metrics]
    for name in ("ndcg", "recall" if "recall" in families else "hit", "pr"):
        own = [metric for metric, family in zip(metrics, families, strict=True) if family == name]
        chosen += [metric for metric in own if metric.endswith(("@5", "@10"))] or own[-1:]
    return chosen or list(metrics)


def shown_name(system: System) -> str:
    """Return a system's name, with a word where it is an oracle."""
    return system.name + (" (oracle)" if system.oracle else "")


def _names(comparison: Comparison) -> list[str]:
    return [shown_name(system) for system in comparison.systems]


def means_grid(comparison: Comparison) -> Grid:
    """Lay out the means of all metrics."""
    rows = []
    corpus = comparison.corpus_metrics
    for name, system in zip(_names(comparison), comparison.systems, strict=True):
        runs = "-" if system.baseline else str(len(system.runs))
        means = [system.summary[metric].mean for metric in comparison.metrics]
        rows.append((name, runs, *map(number, means), *(number(system.corpus.get(key)) for key in corpus)))
    users = comparison.systems[0].frame["user_id"].n_unique()
    title = f"Means over {comparison.systems[0].frame.height} rows of {users} users"
    return Grid(title, ("system", "runs", *comparison.metrics, *corpus), tuple(rows), _best(comparison))


def _best(comparison: Comparison) -> frozenset[tuple[int, int]]:
    """Cells of the best systems of each metric, but for oracles; none where no direction is better or all are alike."""
    best: set[tuple[int, int]] = set()
    systems = comparison.systems
    columns = [(metric, [system.summary[metric].mean for system in systems]) for metric in comparison.metrics]
    columns += [(name, [system.corpus.get(name) for system in systems]) for name in comparison.corpus_metrics]
    for column, (metric, values) in enumerate(columns):
        better = comparison.higher_is_better.get(metric)
        fair = [None if system.oracle else value for value, system in zip(values, systems, strict=True)]
        known = [value for value in fair if value is not None]
        if better is not None and len(set(known)) > 1:
            top = max(known) if better else min(known)
            best |= {(row, column + 2) for row, value in enumerate(fair) if value == top}
    return frozenset(best)


def difference_grid(comparison: Comparison, metric: str) -> Grid:
    """Lay out each system's mean in a metric, and its paired difference to the reference."""
    rows = []
    better = comparison.higher_is_better.get(metric)
    for name, system in zip(_names(comparison), comparison.systems, strict=True):
        if system.name == comparison.reference:
            rows.append((name, figure(system.summary[metric]), "reference", *[""] * 4))
            continue
        test = comparison.tests[system.name][metric]
        if not test.difference.n:
            rows.append((name, figure(system.summary[metric]), "-", *[""] * 4))
            continue
        adjusted = p_text(comparison.adjusted[system.name][metric])
        wins = f"{test.losses}/{test.wins}" if better is False else f"{test.wins}/{test.losses}"
        told = (signed(test.difference), p_text(test.p), adjusted, wins, share(test.tie_share))
        rows.append((name, figure(system.summary[metric]), *told))
    against = f"difference to {comparison.reference}"
    users = "users higher/lower" if better is None else "users better/worse"
    return Grid(metric, ("system", metric, against, "p", "p (Holm)", users, "alike"), tuple(rows))


def cost_grid(comparison: Comparison) -> Grid:
    """Lay out what training and decoding took; without columns where nothing was recorded."""
    known = [key for key in COLUMNS if any(key in system.cost for system in comparison.systems)]
    rows = [
        (name, *(f"{system.cost[key]:,.1f}" if key in system.cost else "-" for key in known))
        for name, system in zip(_names(comparison), comparison.systems, strict=True)
        if not system.baseline
    ]
    return Grid("Cost, mean of the runs", ("system", *(COLUMNS[key] for key in known)), tuple(rows))


def to_rich(grid: Grid) -> Table:
    """Make a table for the console; one of many columns is turned, because a screen is higher than it is wide."""
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    if len(grid.headings) > WIDE and len(grid.headings) > len(grid.rows):
        grid = grid.turned()
    table = Table(title=escape(grid.title))
    for place, heading in enumerate(grid.headings):
        table.add_column(escape(heading), justify="right" if place else "left", overflow="fold")
    for i, row in enumerate(grid.rows):
        table.add_row(*(Text(cell, style="bold" if (i, j) in grid.bold else "") for j, cell in enumerate(row)))
    return table


def to_markdown(comparison: Comparison, more: Sequence[Grid] = ()) -> str:
    """Write all grids as Markdown, and more tables after them."""
    return grids_to_markdown([*grids(comparison), *more], CAPTION)


def grids_to_markdown(every: Sequence[Grid], caption: str) -> str:
    """Write grids as Markdown, with a caption below."""
    parts = []
    for grid in every:
        lines = [f"### {markdown(grid.title)}", "", "| " + " | ".join(map(markdown, grid.headings)) + " |"]
        lines.append("|---" + "|---:" * (len(grid.headings) - 1) + "|")
        for i, row in enumerate(grid.rows):
            cells = [_marked(markdown(cell), "**", "**", (i, j) in grid.bold) for j, cell in enumerate(row)]
            lines.append("| " + " | ".join(cells) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, caption]) + "\n"


def to_latex(comparison: Comparison, more: Sequence[Grid] = ()) -> str:
    """Write all grids as LaTeX tables (package booktabs), and more tables after them."""
    return grids_to_latex([*grids(comparison), *more], CAPTION)


def grids_to_latex(every: Sequence[Grid], caption: str) -> str:
    """Write grids as LaTeX tables, with a caption above."""
    parts = []
    for grid in every:
        lines = ["\\begin{table}", "\\centering", f"\\caption{{{_latex(grid.title)}}}"]
        lines.append(f"\\begin{{tabular}}{{l{'r' * (len(grid.headings) - 1)}}}")
        lines += ["\\toprule", " & ".join(map(_latex, grid.headings)) + " \\\\", "\\midrule"]
        for i, row in enumerate(grid.rows):
            cells = [_marked(_latex(cell), "\\textbf{", "}", (i, j) in grid.bold) for j, cell in enumerate(row)]
            lines.append(" & ".join(cells) + " \\\\")
        parts.append("\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}"]))
    return "\n\n".join([f"% {caption}", *parts]) + "\n"


def _marked(text: str, before: str, after: str, bold: bool) -> str:
    return f"{before}{text}{after}" if bold and text else text


def _latex(text: str) -> str:
    return text.translate(LATEX_ESCAPES)
