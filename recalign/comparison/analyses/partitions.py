"""Ways to part the rows: by how often training saw their positives, and by the length of their histories."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from recalign.comparison.datasets import Datasets
from recalign.comparison.systems import Comparison
from recalign.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from recalign.data.dataset import PreparedDataset

GROUP_EDGE = 5
"""Largest number of training rows of the middle group; R2Rank's groups are 0, 1 to 5, and more."""


@dataclass(frozen=True)
class Part:
    """Some of the rows.

    Args:
        label: in tables and figures.
        places: [N] of the rows, in the order of the systems' tables.
    """

    label: str
    places: np.ndarray


class Partition(ABC):
    """A way to part rows by a number that each of them has; rows without one are left out.

    Attributes:
        name: as users type it.
        title: of tables and figures.
        counts: what the number is.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    counts: ClassVar[str]

    @abstractmethod
    def numbers(self, dataset: PreparedDataset, split: str) -> np.ndarray:
        """Return the number of every row of a split: float64 [U], NaN where a row has none."""

    @abstractmethod
    def parts(self, numbers: np.ndarray) -> list[Part]:
        """Part rows by their numbers: float64 [U], without NaN; parts without rows are left out."""


class _ByPositive(Partition):
    """Parts by how often training saw the positive."""

    counts = "training rows whose positive it is"

    def numbers(self, dataset: PreparedDataset, split: str) -> np.ndarray:
        """Return how many training rows have the row's positive as a positive of theirs; the mean over several."""
        counts = np.bincount(_positives(dataset, "train")[0], minlength=len(dataset.catalogue))
        items, rows, size = _positives(dataset, split)
        each = np.bincount(rows, minlength=size)
        with np.errstate(invalid="ignore"):
            return np.bincount(rows, weights=counts[items], minlength=size) / each


class ColdQuartiles(_ByPositive):
    """Four equal parts, from the positives that training saw least to those that it saw most.

    Source: "Reasoning to Rank" (R2Rank), the analysis of cold items. Rows of equal numbers keep their order.
    """

    name = "cold-quartiles"
    title = "Rows in quarters, by how often training saw their positive"

    def parts(self, numbers: np.ndarray) -> list[Part]:
        """Cut the sorted rows into four parts whose sizes differ by one at most."""
        quarters = np.array_split(np.argsort(numbers, kind="stable"), 4)
        return [
            Part(f"quarter {place}: {_span(numbers[rows])}", np.sort(rows))
            for place, rows in enumerate(quarters, 1)
            if len(rows)
        ]


class ColdGroups(_ByPositive):
    """Positives that training never saw, saw up to five times, and saw more often.

    Source: "Reasoning to Rank" (R2Rank), the groups of its industrial dataset.
    """

    name = "cold-groups"
    title = "Rows by how often training saw their positive"

    def parts(self, numbers: np.ndarray) -> list[Part]:
        """Cut at 0 and at 5."""
        labels = ("0", f"1 to {GROUP_EDGE}", f"more than {GROUP_EDGE}")
        return _binned((numbers > 0).astype(int) + (numbers > GROUP_EDGE), labels)


class ByHistory(Partition):
    """Lengths of the history, as the dataset has it, in parts whose ends double: 1, 2, 3 to 4, 5 to 8, ..."""

    name = "history"
    title = "Rows by the length of their history"
    counts = "items of the history"

    def numbers(self, dataset: PreparedDataset, split: str) -> np.ndarray:
        """Return how many items each history has."""
        import pyarrow.compute as pc

        table = dataset.rows(split).table
        return pc.list_value_length(table["history"]).to_numpy().astype(np.float64)

    def parts(self, numbers: np.ndarray) -> list[Part]:
        """Cut after 0 and after every power of two."""
        bins = np.where(numbers > 0, 1 + np.ceil(np.log2(np.maximum(numbers, 1))), 0).astype(int)
        return _binned(bins, [_span(numbers[bins == place]) for place in range(int(bins.max(initial=0)) + 1)])


PARTITIONS: dict[str, Partition] = {each.name: each for each in (ColdQuartiles(), ColdGroups(), ByHistory())}


def find_partitions(text: str | None) -> list[Partition]:
    """Read `--analyses cold-quartiles,history`; `all` are all of them.

    Raises:
        UserError: an unknown one (with did-you-mean), or one named twice.
    """
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    if names == ["all"]:
        return list(PARTITIONS.values())
    for place, name in enumerate(names):
        if name not in PARTITIONS:
            raise UserError(f"There is no analysis '{name}'.", did_you_mean(name, [*PARTITIONS, "all"]))
        if name in names[:place]:
            raise UserError(f"The analysis '{name}' is asked for twice.", "Name it once.")
    return [PARTITIONS[name] for name in names]


def numbers_of(partition: Partition, comparison: Comparison, datasets: Datasets) -> np.ndarray:
    """Return the number of every row of a comparison, in the order of its systems' tables: float64 [U].

    Raises:
        UserError: a dataset is gone, or was prepared again.
    """
    frame = comparison.systems[0].frame
    data, rows = frame["data"].to_numpy(), frame["row"].to_numpy()
    numbers = np.full(len(rows), np.nan)
    runs = [run for system in comparison.systems for run in system.runs]
    for each in np.unique(data):
        own = [run for run in runs if run.measured_hash == each]
        run = next((run for run in own if datasets.of(run)), None)
        dataset = datasets.of(run) if run else None
        if run is None or dataset is None:
            raise UserError(
                f"The analysis '{partition.name}' reads the dataset that {own[0].folder} was evaluated on; "
                f"{own[0].results['data'].get('path')} is gone, or was prepared again.",
                "Put it back, or leave the analysis out.",
            )
        numbers[data == each] = partition.numbers(dataset, str(run.results["split"]))[rows[data == each]]
    return numbers


def _positives(dataset: PreparedDataset, split: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Return a split's relevant targets: [N] items, [N] the rows that they belong to, and the number of rows."""
    import pyarrow.compute as pc

    table = dataset.rows(split).table
    items = pc.list_flatten(table["targets"]).to_numpy()
    rows = np.repeat(np.arange(table.num_rows), pc.list_value_length(table["targets"]).to_numpy())
    relevant = pc.list_flatten(table["gains"]).to_numpy() > 0
    return items[relevant].astype(np.int64), rows[relevant], table.num_rows


def _binned(bins: np.ndarray, labels: Sequence[str]) -> list[Part]:
    return [Part(label, rows) for place, label in enumerate(labels) if len(rows := np.flatnonzero(bins == place))]


def _span(numbers: np.ndarray) -> str:
    """Write the least and the largest of some numbers."""
    if not len(numbers):
        return ""
    low, high = f"{numbers.min():.4g}", f"{numbers.max():.4g}"
    return low if low == high else f"{low} to {high}"
