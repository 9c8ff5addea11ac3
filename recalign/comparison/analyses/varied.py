"""Varied rows: what a system reaches at every value, held against the same rows as they are, and how it spreads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recalign.comparison.aggregation import System
from recalign.comparison.systems import Comparison
from recalign.evaluation.significance import Interval, Paired, bootstrap_interval, holm, paired
from recalign.variations import KINDS

if TYPE_CHECKING:
    import polars as pl

QUARTILES = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Ranks:
    """Where the first relevant target stands in the lists, from 1.

    Args:
        quartiles: 25%, 50% and 75% of the rows have a rank up to these; None: not in the list.
        listed: share of the rows whose list has one.
    """

    quartiles: tuple[float | None, float | None, float | None]
    listed: float


@dataclass(frozen=True)
class ValueResult:
    """The rows at one value of a variation.

    Args:
        value: which.
        mean: with its interval.
        test: varied - as it is, over the same rows.
        p_holm: p after Holm's correction over the variation's values.
        ranks: of the targets.
        moved: share of the rows whose list is another one than as it is.
    """

    value: int
    mean: Interval
    test: Paired
    p_holm: float
    ranks: Ranks
    moved: float


@dataclass(frozen=True)
class Spread:
    """How far P values of a variation lie apart.

    Args:
        mean: of the P means.
        deviation: standard deviation over the P means (P - 1 below); None of a single one.
        low: the least mean.
        high: the largest.
        row_deviation: mean over the rows of the standard deviation over a row's P values; None of a single one.
    """

    mean: float
    deviation: float | None
    low: float
    high: float
    row_deviation: float | None


@dataclass(frozen=True)
class VariationResult:
    """One variation, by one metric, of one system.

    Args:
        variation: its name.
        metric: that is looked at.
        system: whose lists these are.
        rows: that were varied and have the metric.
        as_it_is: mean over the same rows, not varied, with its interval.
        values: in ascending order.
        spread: of the values.
    """

    variation: str
    metric: str
    system: str
    rows: int
    as_it_is: Interval
    values: tuple[ValueResult, ...]
    spread: Spread


def by_variation(comparison: Comparison, metrics: Sequence[str], seed: int) -> list[VariationResult]:
    """Summarise the varied rows of every system that has some.

    Args:
        comparison: of evaluated systems; runs of one system are averaged, row by row.
        metrics: one result each, where a system has them.
        seed: of the bootstrap.
    """
    tables = [(system, table) for system in comparison.systems if (table := varied_rows(system)) is not None]
    found = []
    for name in KINDS:
        for metric in metrics:
            for system, table in tables:
                own = table.filter(table["variation"] == name)
                if own.height and metric in own.columns and own[metric].count():
                    found.append(_summary(system, name, metric, own, seed))
    return found


def varied_rows(system: System) -> pl.DataFrame | None:
    """Join the varied rows of a system's runs; several runs of one row are averaged. None where there are none."""
    import polars as pl

    if system.baseline:
        return None
    frames = [run.variations for run in system.runs if run.variations is not None]
    if not frames:
        return None
    keys = ["data", "variation", "value", "row", "user_id"]
    return pl.concat(frames, how="diagonal").group_by(keys, maintain_order=True).mean().sort(keys)


def _summary(system: System, name: str, metric: str, table: pl.DataFrame, seed: int) -> VariationResult:
    """Hold every value against the rows as they are."""
    import polars as pl

    keys = ["data", "row"]
    base = system.frame.select(*keys, system.frame[metric].alias("base"))
    table = table.join(base, on=keys, how="inner").drop_nulls([metric, "base"]).sort("value", *keys)
    table = table.filter(pl.len().over(keys) == table["value"].n_unique())  # every value answers the same rows
    values = [part for _, part in table.group_by("value", maintain_order=True)]
    tests = [
        paired(part["base"].to_numpy(), part[metric].to_numpy(), seed, users=part["user_id"].to_numpy())
        for part in values
    ]
    first = values[0]
    results = [
        ValueResult(
            int(part["value"][0]),
            bootstrap_interval(part[metric].to_numpy(), seed, users=part["user_id"].to_numpy()),
            test,
            p,
            _ranks(part["rank"]),
            float(part["moved"].mean()),  # type: ignore[arg-type]
        )
        for part, test, p in zip(values, tests, holm([test.p for test in tests]), strict=True)
    ]
    return VariationResult(
        name,
        metric,
        system.name,
        first.height,
        bootstrap_interval(first["base"].to_numpy(), seed, users=first["user_id"].to_numpy()),
        tuple(results),
        _spread(np.stack([part[metric].to_numpy() for part in values])),
    )


def _spread(values: np.ndarray) -> Spread:
    """Summarise the figures of U rows at P values: [P, U]."""
    means = values.mean(axis=1)
    several = len(values) > 1
    return Spread(
        float(means.mean()),
        float(means.std(ddof=1)) if several else None,
        float(means.min()),
        float(means.max()),
        float(values.std(axis=0, ddof=1).mean()) if several else None,
    )


def _ranks(ranks: pl.Series) -> Ranks:
    """Summarise ranks; a missing one is beyond all others."""
    found = ranks.fill_null(np.inf).to_numpy()
    low, middle, high = (float(each) for each in np.quantile(found, QUARTILES, method="inverted_cdf"))
    known = [each if np.isfinite(each) else None for each in (low, middle, high)]
    return Ranks((known[0], known[1], known[2]), float(np.isfinite(found).mean()))
