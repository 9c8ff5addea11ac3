"""Decoders: from a model to ranked lists."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from recalign.api.base import Plugin
from recalign.data.dataset import Row

if TYPE_CHECKING:
    import torch

    from recalign.api.engine import Engine


@dataclass(frozen=True)
class Predictions:
    """Ranked lists for U rows.

    Args:
        items: [U, K] int64; INVALID where text names no item, and beyond a short list's end.
        scores: [U, K] float64, the decoder's score of each position (higher is better).
        lengths: [U] how many positions each list has.
        rationales: [U, K] str, the text that each position's score was read after, or None where none was written.
    """

    items: np.ndarray
    scores: np.ndarray
    lengths: np.ndarray
    rationales: np.ndarray | None = None


@dataclass(frozen=True)
class ValidContinuations:
    """N prefixes of titles at which a search has a choice, and their valid next tokens, C at most.

    Args:
        rows: [N] int64, which of the rows handed to `Rescorer.begin` each answers.
        nodes: [N] int64, the prefix's node of `engine.trie`.
        children: [N, C] int64, the node that each token leads to, or `trie.nodes` + item where that item's title ends;
            0 in the padding.
        valid: [N, C] bool, two or more a prefix; False in the padding.
        logps: [N, C] float64, the model's log-probabilities; -inf in the padding.
    """

    rows: torch.Tensor
    nodes: torch.Tensor
    children: torch.Tensor
    valid: torch.Tensor
    logps: torch.Tensor


class Rescorer(ABC):
    """Changes the log-probabilities of valid tokens while `engine.beam` or `engine.exact` searches titles.

    Forced tokens are never asked about and keep theirs, which is 0 where scores are renormalised. `engine.trie` says
    what lies below a node: `trie.sums` adds up a value per item over the items below every node, `trie.log_sums` does
    so with logarithms.

    Attributes:
        forced_weight: what the log-probabilities of forced tokens are multiplied by, 0 to 1; it matters where scores
            are full-vocabulary log-probabilities.
    """

    forced_weight: float = 1.0

    @abstractmethod
    def begin(self, rows: Sequence[Row]) -> Callable[[ValidContinuations], torch.Tensor]:
        """Prepare for a batch of rows; return what maps choices to rescored log-probabilities.

        Those are [N, C] float64, finite where valid, and 0 at most, or `engine.exact` finds no longer the best.
        """


class Decoder(Plugin, ABC):
    """Turns a model into ranked lists.

    Attributes:
        tasks: the tasks that it serves.
        progress: what the command wants to be told: called with the number of rows just finished.
        proven: whether no item outside a list has a higher score; other decoders that rank by the same are then
            measured by what they miss of its lists (pruning rates).
    """

    tasks: ClassVar[frozenset[str]] = frozenset({"next", "list"})
    proven: ClassVar[bool] = False

    @property
    def ranks_by(self) -> str | None:
        """The probability of an item that scores are, in words that all decoders share which rank by it; else None."""
        return None

    @property
    def oracle(self) -> bool:
        """Whether the decoder reads the targets; such results are labelled as oracles in every table."""
        return False

    @property
    def files(self) -> list[Path]:
        """Files and folders that it reads: their content decides whether a finished run still fits."""
        return []

    @abstractmethod
    def decode(self, engine: Engine, rows: Sequence[Row], size: int) -> Predictions:
        """Recommend `size` items for each row.

        Args:
            engine: the model bound to the catalogue: `engine.sample`, `engine.greedy`, `engine.beam`.
            rows: one batch.
            size: K.
        """
