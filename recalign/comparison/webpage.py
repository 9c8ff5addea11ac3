"""The report as one self-contained page: no network, light and dark, for screens of any width, readers and printers."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from recalign.comparison.figures import arrow, inline, looks
from recalign.comparison.gallery import Gallery
from recalign.comparison.plots import ranked
from recalign.comparison.report import CAPTION, Grid, cost_grid, difference_grid, main_metrics, means_grid, shown_name
from recalign.comparison.systems import Comparison
from recalign.comparison.tradeoffs import metric_named
from recalign.comparison.trail import Trail, commands
from recalign.comparison.users import Users
from recalign.evaluation.tables import figure, number, p_text, signed

FOLDER = Path(__file__).parent / "page"
MANY = 4
"""Models from which on the page's title counts them."""
PACKAGES = ("recalign", "torch", "transformers", "peft", "polars", "numpy", "scipy")


@dataclass(frozen=True)
class Heading:
    """A column's heading: what it is, the arrow to better values, and what it means."""

    text: str
    arrow: str = ""
    meaning: str = ""


@dataclass(frozen=True)
class PageTable:
    """A table of the page: its title, headings, rows of (text, whether bold), and remarks below it."""

    title: str
    headings: tuple[Heading, ...]
    rows: tuple[tuple[tuple[str, bool], ...], ...]
    remark: str = ""


def to_html(
    comparison: Comparison,
    gallery: Gallery,
    trails: Mapping[str, Sequence[Trail]],
    users: Users,
    made: datetime,
    more: Sequence[Grid] = (),
) -> str:
    """Write the page.

    Args:
        comparison: what it shows.
        gallery: its figures.
        trails: system -> what each of its runs came from.
        users: rows with histories, targets and lists.
        made: when.
        more: tables of analyses.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawn = {id(each): f"f{place}" for place, each in enumerate(gallery.all)}
    metrics = main_metrics(comparison.metrics)
    page = environment.get_template("report.html.jinja").render(
        style=Markup((FOLDER / "report.css").read_text("utf-8")),
        script=Markup((FOLDER / "report.js").read_text("utf-8")),
        svg=lambda each: Markup(inline(each, drawn[id(each)])),
        comparison=comparison,
        title=title_of(comparison),
        rows=comparison.systems[0].frame.height,
        people=comparison.systems[0].frame["user_id"].n_unique(),
        split=comparison.systems[0].runs[0].results["split"],
        made=made.strftime("%Y-%m-%d %H:%M UTC"),
        headlines=[headline(comparison, metric) for metric in metrics if ranked(comparison, metric)],
        rankings=[(metric, _table(comparison, _ranking(comparison, metric))) for metric in metrics],
        means=_means(comparison),
        cost=_table(comparison, cost_grid(comparison)),
        gallery=gallery,
        analyses=[_table(comparison, grid) for grid in more],
        legend=[(shown_name(s), _series(look.colour), look.hollow, s.baseline) for s, look in _looks(comparison)],
        baselines=any(system.baseline for system in comparison.systems),
        users=users,
        browser={
            **users.as_dict(),
            "better": [comparison.higher_is_better.get(metric) for metric in users.metrics],
            "reference": comparison.reference,
            "best": headline(comparison, metrics[0])["name"],
        },
        definitions=definitions(comparison),
        provenance=provenance(comparison, trails),
        commands=commands(trail for each in trails.values() for trail in each),
        versions=versions(),
        caption=CAPTION,
    )
    return str(page) + "\n"


def title_of(comparison: Comparison) -> str:
    """Name the page by what was compared."""
    models = [system for system in comparison.systems if not system.baseline and system.name != comparison.reference]
    if not models:
        return comparison.reference
    named = ", ".join(map(shown_name, models)) if len(models) < MANY else f"{len(models)} models"
    return f"{named} against {comparison.reference}"


def headline(comparison: Comparison, metric: str) -> dict[str, Any]:
    """Say in figures which model is best by a metric, oracles apart, what it gains, and whether a baseline beats it."""
    by_name = {system.name: system for system in comparison.systems}
    fair = [by_name[name] for name in ranked(comparison, metric) if not by_name[name].oracle]
    best = next((system for system in fair if not system.baseline), fair[0] if fair else by_name[comparison.reference])
    lines = ["the reference itself"] if best.name == comparison.reference else []
    if best.name in comparison.tests and comparison.tests[best.name][metric].difference.n:
        adjusted = p_text(comparison.adjusted[best.name][metric])
        lines.append(f"{signed(comparison.tests[best.name][metric].difference)} on {comparison.reference}")
        lines.append(f"p (Holm) {adjusted}")
    baseline = next((system for system in fair if system.baseline), None)
    if baseline is not None and baseline is not best:
        lines.append(f"best baseline: {baseline.name} {number(baseline.summary[metric].mean)}")
    return {
        "metric": metric + arrow(comparison.higher_is_better.get(metric)),
        "name": best.name,
        "value": figure(best.summary[metric]),
        "lines": lines,
    }


def definitions(comparison: Comparison) -> list[dict[str, Any]]:
    """Tell what the metrics mean: names of those that mean the same, arrow, their plugins' description, papers."""
    found: dict[tuple[Any, ...], list[str]] = {}
    for name in (*comparison.metrics, *comparison.corpus_metrics):
        metric = metric_named(name)
        parts = [(term.text, type(term.metric)) for term in metric.terms] if metric else []
        told = [(f"{text}: " if len(parts) > 1 else "") + meaning_of(kind) for text, kind in parts]
        papers = dict.fromkeys(kind.paper for _, kind in parts if kind.paper)
        meaning = "\n".join(told) or "Its plugin is not installed here."
        found.setdefault((meaning, "; ".join(papers), comparison.higher_is_better.get(name)), []).append(name)
    words = {None: "Neither is better.", True: "Higher is better.", False: "Lower is better."}
    return [
        {"names": names, "arrow": arrow(better).strip(), "better": words[better], "meaning": meaning, "paper": paper}
        for (meaning, paper, better), names in found.items()
    ]


def meaning_of(plugin: type) -> str:
    """Return the first paragraph of a plugin's description, on one line."""
    return " ".join((plugin.__doc__ or "").strip().partition("\n\n")[0].replace("`", "").split())


def provenance(comparison: Comparison, trails: Mapping[str, Sequence[Trail]]) -> list[dict[str, Any]]:
    """Tell of each model what it is: a table of its runs, and the options of every step of the first run."""
    told = []
    for system in comparison.systems:
        if system.baseline:
            continue
        own = trails.get(system.name, ())
        rows = []
        for run, trail in zip(system.runs, own, strict=True):
            decoded = trail.predictions.record if trail.predictions else {}
            rows.append(
                {
                    "folder": str(run.folder),
                    "seed": "-" if run.results.get("seed") is None else str(run.results["seed"]),
                    "data": run.data_hash,
                    "path": str(run.results["data"].get("path", "")),
                    "model": str(decoded.get("inputs", {}).get("model", "-")),
                    "decoder": str(decoded.get("options", {}).get("decoder", "-")),
                    "version": str(trail.evaluation.record.get("version", "-")),
                    "date": _date(trail.evaluation.record.get("finished")),
                }
            )
        steps = [
            {
                "command": step.command,
                "folder": str(step.folder),
                "date": _date(step.record.get("finished")),
                "version": str(step.record.get("version", "-")),
                "options": _flat(step.options),
            }
            for step in (own[0].steps if own else ())
        ]
        told.append({"name": shown_name(system), "rows": rows, "steps": steps})
    return told


def versions() -> list[tuple[str, str]]:
    """Return what this page was made with: package, version."""
    found = [("python", platform.python_version())]
    for package in PACKAGES:
        try:
            found.append((package, version(package)))
        except PackageNotFoundError:  # run from its source
            continue
    return found


def _date(seconds: object) -> str:
    if not isinstance(seconds, int | float):
        return "-"
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M")


def _flat(options: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Flatten nested options: `training.seed`, value."""
    flat: list[tuple[str, str]] = []
    for key, value in options.items():
        if isinstance(value, Mapping) and value:
            flat += _flat(value, f"{prefix}{key}.")
        else:
            flat.append((prefix + key, "-" if value is None or value == {} else str(value)))
    return flat


def _looks(comparison: Comparison) -> list[tuple[Any, Any]]:
    look = looks(comparison.systems, comparison.reference)
    return [(system, look[system.name]) for system in comparison.systems]


def _series(colour: str) -> str:
    from recalign.comparison.figures import VARIABLES

    return f"var({VARIABLES[colour]})"


def _ranking(comparison: Comparison, metric: str) -> Grid:
    """The table of differences, the best first; systems without the metric last."""
    grid = difference_grid(comparison, metric)
    order = ranked(comparison, metric)
    names = [system.name for system in comparison.systems]
    places = sorted(range(len(names)), key=lambda i: order.index(names[i]) if names[i] in order else len(order))
    return Grid(grid.title, grid.headings, tuple(grid.rows[place] for place in places))


def _table(comparison: Comparison, grid: Grid) -> PageTable:
    directions = comparison.higher_is_better
    headings = tuple(
        Heading(text, arrow(directions.get(text)).strip(), _meaning(text) if text in directions else "")
        for text in grid.headings
    )
    rows = tuple(tuple((cell, (i, j) in grid.bold) for j, cell in enumerate(row)) for i, row in enumerate(grid.rows))
    return PageTable(grid.title, headings, rows)


def _meaning(name: str) -> str:
    metric = metric_named(name)
    return " ".join(meaning_of(type(term.metric)) for term in metric.terms) if metric else ""


def _means(comparison: Comparison) -> PageTable:
    """The table of all means; a column whose values are all alike is a remark below it."""
    table = _table(comparison, means_grid(comparison))
    alike = {
        j: table.rows[0][j][0]
        for j in range(2, len(table.headings))
        if len(table.rows) > 1 and len({row[j][0] for row in table.rows}) == 1
    }
    kept = [j for j in range(len(table.headings)) if j not in alike]
    remark = ", ".join(f"{table.headings[j].text} {value}" for j, value in alike.items())
    return PageTable(
        table.title,
        tuple(table.headings[j] for j in kept),
        tuple(tuple(row[j] for j in kept) for row in table.rows),
        f"The same for all systems: {remark}." if remark else "",
    )
