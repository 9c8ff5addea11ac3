"""Analyses as tables: parts of the rows, levels of a variation, and how far draws of one spread."""

from __future__ import annotations

from collections.abc import Sequence

from recalign.comparison.analyses import Analyses
from recalign.comparison.analyses.groups import GroupResult, SystemInPart
from recalign.comparison.analyses.varied import Ranks, VariationResult
from recalign.comparison.report import Grid
from recalign.evaluation.significance import Paired
from recalign.evaluation.tables import figure, number, p_text, share, signed
from recalign.variations import KINDS

ANALYSES_CAPTION = (
    "Analyses: p (Holm) is corrected within a table, models and baselines apart; rank of the target: quartiles, - is "
    "beyond the list; moved: share of the rows that get another list."
)
TESTED = ("p", "p (Holm)", "alike")


def analysis_grids(analyses: Analyses) -> list[Grid]:
    """Lay all analyses out, one table for every partition or variation and metric."""
    found = [group_grid(each) for each in analyses.groups]
    for told in together(analyses.variations):
        found.append(spread_grid(told) if KINDS[told[0].variation].exchangeable else value_grid(told))
    return found


def group_grid(result: GroupResult) -> Grid:
    """Lay a partition out: a line for every part and system."""
    lines = []
    for part in result.parts:
        for place, cell in enumerate(part.systems):
            lines.append(("" if place else part.label, "" if place else str(part.rows), cell.system, *_tested(cell)))
    title = f"{result.metric}: {result.title}"
    if result.left_out:
        title += f" ({result.left_out} rows without a positive left out)"
    against = f"difference to {result.reference}"
    return Grid(title, (result.counts, "rows", "system", result.metric, against, *TESTED), tuple(lines))


def value_grid(results: Sequence[VariationResult]) -> Grid:
    """Lay a variation out whose values are levels: a line for every system and value."""
    kind, metric = KINDS[results[0].variation], results[0].metric
    lines: list[tuple[str, ...]] = []
    for told in results:
        lines.append((told.system, "as it is", str(told.rows), figure(told.as_it_is), *[""] * 6))
        for each in told.values:
            facts = (*_test(each.test, each.p_holm), ranks_text(each.ranks), share(each.moved))
            lines.append(("", str(each.value), str(told.rows), figure(each.mean), *facts))
    headings = (
        "system",
        kind.heading,
        "rows",
        metric,
        "difference to as it is",
        *TESTED,
        "rank of the target",
        "moved",
    )
    return Grid(f"{metric}: {kind.title}", headings, tuple(lines))


def spread_grid(results: Sequence[VariationResult]) -> Grid:
    """Lay a variation out whose values are draws: a line for every system, with mean, deviation and range."""
    kind, metric = KINDS[results[0].variation], results[0].metric
    lines = []
    for told in results:
        spread = told.spread
        moved = sum(each.moved for each in told.values) / len(told.values)
        deviations = (number(spread.deviation), f"{number(spread.low)} to {number(spread.high)}")
        figures = (figure(told.as_it_is), number(spread.mean), *deviations, number(spread.row_deviation), share(moved))
        lines.append((told.system, str(told.rows), str(len(told.values)), *figures))
    told_of = ("mean", "deviation of the means", "range of the means", "mean deviation of a row", "moved")
    return Grid(
        f"{metric}: {kind.title}", ("system", "rows", f"{kind.heading}s", f"{metric} as it is", *told_of), tuple(lines)
    )


def ranks_text(ranks: Ranks) -> str:
    """Write quartiles of ranks: `2, 5, 11`; `-` is beyond the list."""
    return ", ".join("-" if each is None else f"{each:g}" for each in ranks.quartiles)


def together(results: Sequence[VariationResult]) -> list[list[VariationResult]]:
    """Put the systems of one variation and metric beside each other."""
    found: dict[tuple[str, str], list[VariationResult]] = {}
    for each in results:
        found.setdefault((each.variation, each.metric), []).append(each)
    return list(found.values())


def _tested(cell: SystemInPart) -> tuple[str, ...]:
    if cell.test is None or cell.p_holm is None:
        return (figure(cell.mean), *[""] * 4)
    return (figure(cell.mean), *_test(cell.test, cell.p_holm))


def _test(test: Paired, p_holm: float) -> tuple[str, ...]:
    return (signed(test.difference), p_text(test.p), p_text(p_holm), share(test.tie_share))
