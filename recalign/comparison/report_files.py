"""The files of a comparison: tables for programs and papers, figures, and the page that shows it all."""

from __future__ import annotations

import csv
import io
from datetime import datetime, timezone
from pathlib import Path

from recalign.comparison.analyses import NO_ANALYSES, Analyses
from recalign.comparison.analyses.tables import analysis_grids
from recalign.comparison.gallery import draw_all, write_figures
from recalign.comparison.report import main_metrics, to_latex, to_markdown
from recalign.comparison.systems import Comparison
from recalign.comparison.tradeoffs import axes_of
from recalign.comparison.trail import trail_of
from recalign.comparison.users import gather_users
from recalign.comparison.webpage import to_html
from recalign.workspace import atomic, write_json

FILES = ("table.json", "table.md", "table.tex", "table.csv", "report.html", "figures")
COLUMNS = (
    *("system", "baseline", "oracle", "runs", "metric", "higher_is_better", "rows", "mean", "low", "high"),
    *("reference", "difference", "difference_low", "difference_high", "p", "p_holm"),
    *("users_higher", "users_lower", "users_alike"),
)


def to_csv(comparison: Comparison) -> str:
    """Write a line for every system and metric, in full precision: mean, interval, paired test; corpus metrics too."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    for system in comparison.systems:
        about = {
            "system": system.name,
            "baseline": system.baseline,
            "oracle": system.oracle,
            "runs": len(system.runs),
            "rows": system.frame.height,
            "reference": comparison.reference,
        }
        for metric in comparison.metrics:
            interval = system.summary[metric]
            line = {"mean": interval.mean, "low": interval.low, "high": interval.high, "rows": interval.n}
            test = comparison.tests.get(system.name, {}).get(metric)
            if test is not None and test.difference.n:
                line |= {
                    "difference": test.difference.mean,
                    "difference_low": test.difference.low,
                    "difference_high": test.difference.high,
                    "p": test.p,
                    "p_holm": comparison.adjusted[system.name][metric],
                    "users_higher": test.wins,
                    "users_lower": test.losses,
                    "users_alike": test.ties,
                }
            better = comparison.higher_is_better.get(metric)
            table.writerow({**about, "metric": metric, "higher_is_better": better, **line})
        for name, value in system.corpus.items():
            better = comparison.higher_is_better.get(name)
            table.writerow({**about, "metric": name, "higher_is_better": better, "mean": value})
    return text.getvalue()


def write_report(
    comparison: Comparison, folder: Path, *, analyses: Analyses = NO_ANALYSES, users: int = 5000, seed: int = 0
) -> list[Path]:
    """Write table.json, table.md, table.tex, table.csv, report.html and the figures; return their paths.

    Args:
        comparison: what to show.
        folder: where to.
        analyses: of the comparison, which are shown after it.
        users: rows that the page's browser of users shows at most.
        seed: of the drawing of those rows.

    Raises:
        UserError: the disk is full.
    """
    trails = {s.name: [trail_of(run) for run in s.runs] for s in comparison.systems if not s.baseline}
    gallery = draw_all(comparison, trails, analyses)
    more = analysis_grids(analyses)
    beside = [axis.name for axis in axes_of(comparison) if axis.name in comparison.metrics]
    scored = list(dict.fromkeys([*main_metrics(comparison.metrics), *beside]))
    shown = gather_users(comparison, scored, users, seed)
    texts = {
        "table.md": to_markdown(comparison, more),
        "table.tex": to_latex(comparison, more),
        "table.csv": to_csv(comparison),
        "report.html": to_html(comparison, gallery, trails, shown, datetime.now(timezone.utc), more),
    }
    write_json(folder / "table.json", {**comparison.as_dict(), "analyses": analyses.as_dict()})
    for name, text in texts.items():
        with atomic(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return [folder / "table.json", *(folder / name for name in texts), *write_figures(gallery.all, folder / "figures")]
