"""Compare evaluated runs: join folds, average seeds, test paired differences to a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from recalign.comparison.aggregation import System, aggregate, aggregate_baselines, check_same_rows, metrics_of
from recalign.comparison.evaluations import Evaluation
from recalign.errors import UserError, did_you_mean
from recalign.evaluation.significance import Paired, holm
from recalign.evaluation.tables import paired_tests


@dataclass(frozen=True)
class Comparison:
    """Systems over the same rows, and their paired differences to the reference.

    Args:
        systems: models first, in the order given, then the baselines.
        reference: name of the system that the others are held against.
        metrics: names.
        tests: system -> metric -> system - reference.
        adjusted: system -> metric -> p after Holm's correction, over models and over baselines apart, metric by metric.
        higher_is_better: metric, corpus-level ones too -> as its plugin declares; None: neither direction is better.
    """

    systems: tuple[System, ...]
    reference: str
    metrics: tuple[str, ...]
    tests: dict[str, dict[str, Paired]]
    adjusted: dict[str, dict[str, float]]
    higher_is_better: dict[str, bool | None]

    @property
    def corpus_metrics(self) -> list[str]:
        """Names of the corpus-level metrics that any system has."""
        return list(dict.fromkeys(name for system in self.systems for name in system.corpus))

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON files hold of it."""
        return {
            "reference": self.reference,
            "metrics": list(self.metrics),
            "systems": [self._system(system) for system in self.systems],
        }

    def _system(self, system: System) -> dict[str, Any]:
        tests = {
            metric: {**test.as_dict(), "p_holm": self.adjusted[system.name][metric]}
            for metric, test in self.tests.get(system.name, {}).items()
        }
        return {
            "name": system.name,
            "baseline": system.baseline,
            "oracle": system.oracle,
            "rows": system.frame.height,
            "metrics": {name: interval.as_dict() for name, interval in system.summary.items()},
            "against_reference": tests,
            "corpus": system.corpus,
            "cost": system.cost,
            "runs": [
                {
                    "folder": str(run.folder),
                    "data": run.data_hash,
                    "seed": run.results.get("seed"),
                    "means": {name: run.results["metrics"].get(name, {}).get("mean") for name in self.metrics},
                }
                for run in system.runs
                if not system.baseline
            ],
        }


def compare(
    groups: Mapping[str, Sequence[Evaluation]],
    *,
    reference: str | None = None,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare groups of runs.

    Args:
        groups: name -> the runs that are aggregated: folds of one dataset, seeds of one configuration.
        reference: name of a group or baseline; by default the first group.
        metrics: names; by default all. A system that lacks one has no value there. Corpus-level ones may be among
            them: then only those are shown, and if there is no other, all that have a value for each list.
        seed: of the bootstrap.

    Raises:
        UserError: runs of different datasets, splits or rows, both named; an unknown metric or reference.
    """
    names = metrics_of(groups, metrics)
    systems = [aggregate(name, runs, names, seed) for name, runs in groups.items()]
    for other in systems[1:]:
        check_same_rows(systems[0], other)
    systems += aggregate_baselines(groups, systems[0], names, seed)
    named = [name for name in metrics or () if any(name in system.corpus for system in systems)]
    if named:
        systems = [
            replace(each, corpus={name: each.corpus[name] for name in named if name in each.corpus}) for each in systems
        ]
    by_name = {system.name: system for system in systems}
    chosen = systems[0].name if reference is None else reference
    if chosen not in by_name:
        raise UserError(f"There is no system '{chosen}' to compare with.", did_you_mean(chosen, by_name))
    others = [system for system in systems if system.name != chosen]
    evaluations = [run for runs in groups.values() for run in runs]
    directions = {name: better for run in reversed(evaluations) for name, better in run.higher_is_better.items()}
    tests = {system.name: paired_tests(by_name[chosen].frame, system.frame, seed) for system in others}
    return Comparison(tuple(systems), chosen, tuple(names), tests, _adjusted(others, tests, names), directions)


def _adjusted(
    systems: Sequence[System], tests: Mapping[str, Mapping[str, Paired]], metrics: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Holm's correction over the comparisons of each metric; models and baselines are two families."""
    adjusted = {system.name: dict.fromkeys(metrics, 1.0) for system in systems}
    for family in ([s.name for s in systems if not s.baseline], [s.name for s in systems if s.baseline]):
        for metric in metrics:
            tested = [name for name in family if tests[name][metric].difference.n]
            for name, p in zip(tested, holm([tests[name][metric].p for name in tested]), strict=True):
                adjusted[name][metric] = p
    return adjusted
