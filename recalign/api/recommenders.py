"""Recommenders: conventional ones, such as item-kNN or SASRec, that score all items of the catalogue for a row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from recalign.api.base import Plugin
from recalign.data.catalogue import Catalogue
from recalign.data.dataset import Row, Rows

if TYPE_CHECKING:
    from recalign.data.dataset import PreparedDataset


@dataclass(frozen=True)
class TrainingData:
    """What a recommender may learn from: the training interactions that the language models learn from, too.

    Args:
        catalogue: I items, with titles, genres, texts and training popularity.
        users: [E] int64, user of each training interaction; interactions are sorted by user and then by time.
        items: [E] int64, item of each.
        timestamps: [E] float64, time of each.
        validation: opens the validation rows, for early stopping.
        exclude_history: whether items that a user had before are never recommended in this dataset.
        user_ids: raw id of each user, by its number in `users`.
    """

    catalogue: Catalogue
    users: np.ndarray
    items: np.ndarray
    timestamps: np.ndarray
    validation: Callable[[], Rows | Sequence[Row]] = list
    exclude_history: bool = False
    user_ids: Sequence[str] = ()

    @classmethod
    def of(cls, dataset: PreparedDataset) -> TrainingData:
        """Read the training interactions of a dataset.

        Raises:
            UserError: the file is missing or damaged.
        """
        frame = dataset.interactions().sort("user_id", "timestamp", maintain_order=True)
        names, users = np.unique(frame["user_id"].to_numpy(), return_inverse=True)
        return cls(
            catalogue=dataset.catalogue,
            users=users,
            items=frame["item"].to_numpy().astype(np.int64),
            timestamps=frame["timestamp"].to_numpy().astype(np.float64),
            validation=lambda: dataset.rows("valid"),
            exclude_history=dataset.excludes_history(),
            user_ids=[str(name) for name in names],
        )

    @property
    def counts(self) -> np.ndarray:
        """[I] int64, how many training interactions each item has."""
        return np.bincount(self.items, minlength=len(self.catalogue))


class Recommender(Plugin, ABC):
    """Scores every item of the catalogue for a row, from the row's history and what it learnt.

    It serves `recalign baseline`, stands beside a model in `recalign eval --recommenders`, and assists decoders and
    rewards. Either `fit` or `load` comes first, then `scores` any number of times. Import heavy packages inside
    functions: listing plugins and fitting another recommender must not wait for them.

    Attributes:
        display_name: its name in tables; by default the name that users type.
        fitted: figures about the fit that the run's record keeps, such as the best epoch; set it in `fit`.
    """

    display_name: ClassVar[str] = ""
    fitted: dict[str, float]

    def __init__(self, params: object = None, *, name: str = "") -> None:
        super().__init__(params, name=name)  # type: ignore[arg-type]
        self.fitted = {}

    @property
    def title(self) -> str:
        """Its name in tables."""
        return self.display_name or self.name

    @abstractmethod
    def fit(self, data: TrainingData, seed: int) -> None:
        """Learn from the training interactions; equal data and seeds give equal scores.

        Args:
            data: the training interactions, and validation rows for early stopping.
            seed: of everything that is drawn.
        """

    @abstractmethod
    def scores(self, rows: Sequence[Row]) -> np.ndarray:
        """Return the score of every item for B rows: float64 [B, I], higher is better, no NaN; -inf rules items out.

        Args:
            rows: [B], of any split; their targets may not be read.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what `load` needs to give the same scores.

        Args:
            folder: it exists; nothing else is written there.
        """

    @abstractmethod
    def load(self, folder: Path, catalogue: Catalogue) -> None:
        """Read what `save` wrote, in place of `fit`.

        Args:
            folder: that `save` wrote to.
            catalogue: of a dataset with the same items and training popularity as the one that was fitted.

        Raises:
            UserError: files are missing or damaged.
        """
