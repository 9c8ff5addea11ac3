"""Decoders: from a model to ranked lists."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from recalign.api.base import Plugin
from recalign.data.dataset import Row

if TYPE_CHECKING:
    from recalign.generation.engine import Engine


@dataclass(frozen=True)
class Predictions:
    """Ranked lists for U rows.

    Args:
        items: [U, K] int64; INVALID where text names no item, and beyond a short list's end.
        scores: [U, K] float64, the decoder's score of each position (higher is better).
        lengths: [U] how many positions each list has.
    """

    items: np.ndarray
    scores: np.ndarray
    lengths: np.ndarray


class Decoder(Plugin, ABC):
    """Turns a model into ranked lists.

    Attributes:
        tasks: the tasks that it serves.
        progress: what the command wants to be told: called with the number of rows just finished.
    """

    tasks: ClassVar[frozenset[str]] = frozenset({"next", "list"})

    @property
    def oracle(self) -> bool:
        """Whether the decoder reads the targets; such results are labelled as oracles in every table."""
        return False

    @abstractmethod
    def decode(self, engine: Engine, rows: Sequence[Row], size: int) -> Predictions:
        """Recommend `size` items for each row.

        Args:
            engine: the model bound to the catalogue: `engine.sample`, `engine.greedy`, `engine.beam`.
            rows: one batch.
            size: K.
        """
