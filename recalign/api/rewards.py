"""Rewards: one value a ranked list."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from recalign.api.base import Plugin
from recalign.data.catalogue import Catalogue
from recalign.data.dataset import Row
from recalign.errors import UserError


@dataclass(frozen=True)
class ListBatch:
    """N ranked lists, with what a reward may read of the rows that they answer.

    Args:
        items: [N, K] int64 item indices in rank order; INVALID where the text is no item. Positions at or after
            `lengths` are padding and INVALID too.
        lengths: [N] how many positions the list has.
        rows: [N] the row of each list (history, targets, gains).
        groups: [N] which prompt each list answers: a reward may look at the whole group.
        logps: [N] the list's total log-probability under the model, where a model made it.
        ranks: [N] place of each list in its group, 0 for the best, where the lists of a group are the single titles of
            one beam search; None where lists stand alone or are samples.
    """

    items: np.ndarray
    lengths: np.ndarray
    rows: Sequence[Row]
    groups: np.ndarray
    logps: np.ndarray | None = None
    ranks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.items)


Reads = Literal["targets", "history", "genres", "popularity", "logps", "ranks"]


class Metric(Plugin, ABC):
    """One value per ranked list; the same code serves `align` and `eval`.

    Implement `score_one` (plain) or override `score` (vectorised). A reward reads only what it declares.

    Attributes:
        reads: what it reads; a dataset that lacks it is refused before the run, a decoder whose reward reads `targets`
            is an oracle, and one that reads `ranks` is refused where alignment samples.
        higher_is_better: False for measures of harm such as mgu.
        takes_cutoff: whether `name@k` is meaningful; `self.cutoff` is k, or None for the whole list.
    """

    reads: ClassVar[frozenset[Reads]] = frozenset()
    higher_is_better: ClassVar[bool] = True
    takes_cutoff: ClassVar[bool] = True

    cutoff: int | None = None
    catalogue: Catalogue

    def bind(self, catalogue: Catalogue, cutoff: int | None = None) -> None:
        """Attach the catalogue and the `@k` of the expression; called once, before any score.

        Raises:
            UserError: the catalogue lacks what the reward reads.
        """
        if "genres" in self.reads and not catalogue.genre_names:
            raise UserError(
                f"The reward '{self.name}' reads genres, and no item of this dataset has any.",
                "Prepare the dataset from a source with genres, or choose another reward.",
            )
        self.catalogue, self.cutoff = catalogue, cutoff

    def score_one(self, items: np.ndarray, row: Row) -> float:
        """Value of one list.

        Args:
            items: [K] item indices, INVALID where the text is no item, cut at `@k` already.
            row: what it answers.
        """
        raise NotImplementedError(f"{type(self).__name__} implements neither score_one nor score")

    def score(self, lists: ListBatch) -> np.ndarray:
        """Values of N lists: float64 [N], finite. By default one call of `score_one` each."""
        ends = lists.lengths if self.cutoff is None else np.minimum(lists.lengths, self.cutoff)
        return np.array(
            [self.score_one(items[:end], row) for items, end, row in zip(lists.items, ends, lists.rows, strict=True)],
            dtype=np.float64,
        )

    def defined_for(self, row: Row) -> bool:
        """Whether the value means anything for a row; rows for which it does not are left out and counted."""
        return True
