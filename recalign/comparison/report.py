"""A comparison for readers: the same grids as rich tables, Markdown, LaTeX and one HTML page with an interval plot."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recalign.comparison.systems import Comparison
from recalign.evaluation.tables import figure, number, p_text, signed
from recalign.runs.cost import COLUMNS
from recalign.workspace import atomic, write_json

if TYPE_CHECKING:
    from rich.table import Table

FILES = ("table.json", "table.md", "table.tex", "report.html", "intervals.png")
LATEX_ESCAPES = str.maketrans(
    {c: f"\\{c}" for c in "_%&#${}"}
    | {"\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}"}
    | {"|": r"\textbar{}", "<": r"\textless{}", ">": r"\textgreater{}"}
)
MARKDOWN_ESCAPES = str.maketrans({c: f"\\{c}" for c in "\\`*[]|"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"})
CAPTION = (
    "95% bootstrap intervals over users; p: paired Wilcoxon signed-rank over users; p (Holm): corrected for the number "
    "of systems, models and baselines apart; * the interval of the difference leaves out zero."
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
    found = [_means(comparison), *(_differences(comparison, metric) for metric in main_metrics(comparison.metrics))]
    return [*found, *([_cost(comparison)] if any(system.cost for system in comparison.systems) else [])]


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


def _names(comparison: Comparison) -> list[str]:
    return [system.name + (" (oracle)" if system.oracle else "") for system in comparison.systems]


def _means(comparison: Comparison) -> Grid:
    rows = []
    corpus = list(comparison.systems[0].corpus)
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
    columns += [(name, [system.corpus.get(name) for system in systems]) for name in systems[0].corpus]
    for column, (metric, values) in enumerate(columns):
        better = comparison.higher_is_better.get(metric)
        fair = [None if system.oracle else value for value, system in zip(values, systems, strict=True)]
        known = [value for value in fair if value is not None]
        if better is not None and len(set(known)) > 1:
            top = max(known) if better else min(known)
            best |= {(row, column + 2) for row, value in enumerate(fair) if value == top}
    return frozenset(best)


def _differences(comparison: Comparison, metric: str) -> Grid:
    rows = []
    better = comparison.higher_is_better.get(metric)
    for name, system in zip(_names(comparison), comparison.systems, strict=True):
        if system.name == comparison.reference:
            rows.append((name, figure(system.summary[metric]), "reference", "", "", ""))
            continue
        test = comparison.tests[system.name][metric]
        if not test.difference.n:
            rows.append((name, figure(system.summary[metric]), "-", "", "", ""))
            continue
        adjusted = p_text(comparison.adjusted[system.name][metric])
        wins = f"{test.losses}/{test.wins}" if better is False else f"{test.wins}/{test.losses}"
        rows.append((name, figure(system.summary[metric]), signed(test.difference), p_text(test.p), adjusted, wins))
    against = f"difference to {comparison.reference}"
    users = "users higher/lower" if better is None else "users better/worse"
    return Grid(metric, ("system", metric, against, "p", "p (Holm)", users), tuple(rows))


def _cost(comparison: Comparison) -> Grid:
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


def to_markdown(comparison: Comparison) -> str:
    """Write all grids as Markdown."""
    parts = []
    for grid in grids(comparison):
        lines = [f"### {_markdown(grid.title)}", "", "| " + " | ".join(map(_markdown, grid.headings)) + " |"]
        lines.append("|---" + "|---:" * (len(grid.headings) - 1) + "|")
        for i, row in enumerate(grid.rows):
            cells = [_marked(_markdown(cell), "**", "**", (i, j) in grid.bold) for j, cell in enumerate(row)]
            lines.append("| " + " | ".join(cells) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, CAPTION]) + "\n"


def to_latex(comparison: Comparison) -> str:
    """Write all grids as LaTeX tables (package booktabs)."""
    parts = []
    for grid in grids(comparison):
        lines = ["\\begin{table}", "\\centering", f"\\caption{{{_latex(grid.title)}}}"]
        lines.append(f"\\begin{{tabular}}{{l{'r' * (len(grid.headings) - 1)}}}")
        lines += ["\\toprule", " & ".join(map(_latex, grid.headings)) + " \\\\", "\\midrule"]
        for i, row in enumerate(grid.rows):
            cells = [_marked(_latex(cell), "\\textbf{", "}", (i, j) in grid.bold) for j, cell in enumerate(row)]
            lines.append(" & ".join(cells) + " \\\\")
        parts.append("\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}"]))
    return "\n\n".join([f"% {CAPTION}", *parts]) + "\n"


def to_html(comparison: Comparison, plot: bytes) -> str:
    """Write one self-contained page.

    Args:
        comparison: what it shows.
        plot: PNG, embedded.
    """
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>recalign compare</title>",
        "<style>body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:75em;padding:0 1em}"
        "table{border-collapse:collapse;margin:1em 0}"
        "td,th{padding:.25em .7em;text-align:right;border-bottom:1px solid #ddd}"
        "td:first-child,th:first-child{text-align:left}.wide{overflow-x:auto}img{max-width:100%}</style>",
        f"<h1>Against {html.escape(comparison.reference)}</h1>",
        f"<img alt='means with 95% intervals' src='data:image/png;base64,{base64.b64encode(plot).decode()}'>",
    ]
    for grid in grids(comparison):
        parts.append(f"<h2>{html.escape(grid.title)}</h2><div class='wide'><table><tr>")
        parts.append("".join(f"<th>{html.escape(heading)}</th>" for heading in grid.headings) + "</tr>")
        for i, row in enumerate(grid.rows):
            cells = [_marked(html.escape(cell), "<b>", "</b>", (i, j) in grid.bold) for j, cell in enumerate(row)]
            parts.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
        parts.append("</table></div>")
    return "\n".join([*parts, f"<p>{html.escape(CAPTION)}</p></html>"]) + "\n"


def write_report(comparison: Comparison, folder: Path) -> list[Path]:
    """Write table.json, table.md, table.tex, report.html and intervals.png; return their paths.

    Raises:
        UserError: the disk is full.
    """
    from recalign.comparison.plots import interval_plot

    plot = interval_plot(comparison, main_metrics(comparison.metrics))
    data, *texts, picture = FILES
    write_json(folder / data, comparison.as_dict())
    for name, text in zip(
        texts, (to_markdown(comparison), to_latex(comparison), to_html(comparison, plot)), strict=True
    ):
        with atomic(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    with atomic(folder / picture) as temporary:
        temporary.write_bytes(plot)
    return [folder / name for name in FILES]


def _marked(text: str, before: str, after: str, bold: bool) -> str:
    return f"{before}{text}{after}" if bold and text else text


def _markdown(text: str) -> str:
    return text.translate(MARKDOWN_ESCAPES)


def _latex(text: str) -> str:
    return text.translate(LATEX_ESCAPES)
