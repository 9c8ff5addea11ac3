"""Metrics: one value per ranked list, or one per evaluation. What alignment maximises, its reward, is made of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from recalign.api.base import Plugin
from recalign.api.decoders import Predictions
from recalign.data.catalogue import Catalogue
from recalign.data.dataset import Row
from recalign.errors import UserError


@dataclass(frozen=True)
class ListBatch:
    """N ranked lists, with what a metric may read of the rows that they answer.

    Args:
        items: [N, K] int64 item indices in rank order; INVALID where the text is no item. Positions at or after
            `lengths` are padding and INVALID too.
        lengths: [N] how many positions the list has.
        rows: [N] the row of each list (history, targets, gains).
        groups: [N] which prompt each list answers: a metric may look at the whole group.
        logps: [N] the list's total log-probability under the model, where a model made it.
        ranks: [N] place of each list in its group, 0 for the best, where the lists of a group are the single titles of
            one beam search; None where lists stand alone or are samples.
        exact: the true best titles of each row, N lists; None but where `eval --exact` provides them.
    """

    items: np.ndarray
    lengths: np.ndarray
    rows: Sequence[Row]
    groups: np.ndarray
    logps: np.ndarray | None = None
    ranks: np.ndarray | None = None
    exact: Predictions | None = None

    def __len__(self) -> int:
        return len(self.items)


Reads = Literal["targets", "history", "genres", "popularity", "logps", "ranks", "exact"]


class AnyMetric(Plugin, ABC):
    """What per-list and corpus-level metrics share; inherit from `Metric` or `CorpusMetric`.

    Attributes:
        reads: what it reads; a dataset that lacks it is refused before the run, a decoder whose reward reads `targets`
            is an oracle, one that reads `ranks` is refused where alignment samples, and one that reads `exact` is
            computed by `eval --exact` alone.
        higher_is_better: False for harm, such as mgu; None where neither direction is better, such as popularity.
            Tables mark the best system, and count better and worse users, by it.
        takes_cutoff: whether `name@k` is meaningful; `self.cutoff` is k, or None for the whole list.
    """

    reads: ClassVar[frozenset[Reads]] = frozenset()
    higher_is_better: ClassVar[bool | None] = True
    takes_cutoff: ClassVar[bool] = True

    cutoff: int | None = None
    catalogue: Catalogue

    def bind(self, catalogue: Catalogue, cutoff: int | None = None) -> None:
        """Attach the catalogue and the `@k` of the expression; called once, before any score.

        Raises:
            UserError: the catalogue lacks what the metric reads.
        """
        if "genres" in self.reads and not catalogue.genre_names:
            raise UserError(
                f"The metric '{self.name}' reads genres, and no item of this dataset has any.",
                "Prepare the dataset from a source with genres, or choose another metric.",
            )
        self.catalogue, self.cutoff = catalogue, cutoff


class Metric(AnyMetric):
    """One value per ranked list; the same code serves `align` (as a reward), `sft` and `eval`.

    Implement `score_one` (simple) or override `score` (vectorised). A metric reads only what it declares.
    """

    def score_one(self, items: np.ndarray, row: Row) -> float:
        """Return the value of one list.

        Args:
            items: [K] item indices, INVALID where the text is no item, cut at `@k` already.
            row: what it answers.
        """
        raise NotImplementedError(f"{type(self).__name__} implements neither score_one nor score")

    def score(self, lists: ListBatch) -> np.ndarray:
        """Return the values of N lists: float64 [N], finite. By default one call of `score_one` per list."""
        ends = lists.lengths if self.cutoff is None else np.minimum(lists.lengths, self.cutoff)
        return np.array(
            [self.score_one(items[:end], row) for items, end, row in zip(lists.items, ends, lists.rows, strict=True)],
            dtype=np.float64,
        )

    def defined_for(self, row: Row) -> bool:
        """Return whether the value means anything for a row; other rows are left out and counted."""
        return True


class CorpusMetric(AnyMetric):
    """One value for all lists of an evaluation together, such as coverage; it cannot be a reward or part of a sum."""

    @abstractmethod
    def score(self, predictions: Predictions, rows: Sequence[Row]) -> float:
        """Return the value of U lists together, finite.

        Args:
            predictions: U lists; not cut: `self.cutoff` is k, or None for the whole lists.
            rows: [U] what they answer.
        """
