"""Analyses of a comparison: parts of its rows, and rows with one thing changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from recalign.comparison.analyses.groups import GroupResult, by_group
from recalign.comparison.analyses.partitions import Partition, numbers_of
from recalign.comparison.analyses.varied import VariationResult, by_variation
from recalign.comparison.datasets import Datasets
from recalign.comparison.report import main_metrics
from recalign.comparison.systems import Comparison

__all__ = ["NO_ANALYSES", "Analyses", "analyse"]


@dataclass(frozen=True)
class Analyses:
    """What was found in parts of the rows, and in varied rows; both may be empty.

    Args:
        groups: by analysis and metric.
        variations: by variation, metric and system; of every system that answered varied rows.
    """

    groups: tuple[GroupResult, ...] = ()
    variations: tuple[VariationResult, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.groups or self.variations)

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON files hold of it; tests have the share of users alike, too."""
        told = asdict(self)
        for each in told["groups"]:
            for part in each["parts"]:
                for system in part["systems"]:
                    _add_share(system["test"])
        for each in told["variations"]:
            for value in each["values"]:
                _add_share(value["test"])
        return told

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Analyses:
        """Read back what `as_dict` returned."""
        from pydantic import TypeAdapter

        return TypeAdapter(cls).validate_python(told)


NO_ANALYSES = Analyses()


def analyse(comparison: Comparison, partitions: Sequence[Partition], seed: int = 0) -> Analyses:
    """Analyse a comparison by its main metrics.

    Args:
        comparison: systems over the same rows.
        partitions: ways to part the rows.
        seed: of the bootstraps.

    Raises:
        UserError: see `numbers_of`.
    """
    metrics, datasets = main_metrics(comparison.metrics), Datasets()
    groups: list[GroupResult] = []
    for partition in partitions:
        groups += by_group(comparison, partition, numbers_of(partition, comparison, datasets), metrics, seed)
    return Analyses(tuple(groups), tuple(by_variation(comparison, metrics, seed)))


def _add_share(test: dict[str, Any] | None) -> None:
    if test is not None:
        users = test["wins"] + test["losses"] + test["ties"]
        test["tie_share"] = test["ties"] / users if users else None
