"""The task `list`: a row has several targets, and a response names several titles in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from recalign.api import Predictions, Row, UserError
from recalign.tasks.task import Shape, Task

if TYPE_CHECKING:
    from recalign.api import Engine

TARGETS = 10
TITLES = 5
"""BLADE's setting: ten targets per row, responses of five titles."""


class ListTask(Task):
    """Several targets per row; a response is a list of titles, best first."""

    name = "list"
    summary = "several targets per row"
    decoders = ("greedy", "sample", "bon")

    def shape(self, targets: int | None, stride: int | None, list_length: int | None, candidates: int = 0) -> Shape:
        """Ten targets, five titles, a training window at every half of the targets, unless told otherwise.

        Raises:
            UserError: responses longer than the targets that they imitate.
        """
        targets = targets or TARGETS
        if (list_length or 1) > targets:
            raise UserError(
                f"--list-length {list_length} is more than --targets {targets}; a response imitates them.",
                "Raise --targets or lower --list-length.",
            )
        return Shape(targets, stride or max(1, targets // 2), list_length or min(TITLES, targets))

    def list_size(self, list_length: int) -> int:
        """Return K: the ranked list is the response."""
        return list_length

    def writable_length(self, list_length: int, size: int, decoder: str) -> int:
        """Return the size asked for, where the model was trained on lists of that length.

        Raises:
            UserError: it is longer.
        """
        if size > list_length:
            raise UserError(
                f"The decoder '{decoder}' writes the model's own lists, which have {list_length} items, not {size}.",
                f"Ask for --size {list_length} or less, or train on longer lists.",
            )
        return size

    def decode(self, engine: Engine, rows: Sequence[Row]) -> Predictions:
        """Decode one list per row greedily; every position has the list's log-probability as its score."""
        lists = engine.greedy(rows, list_length=engine.list_length)
        items = lists.items.numpy()
        scores = np.repeat(lists.logps.sum(dim=1, keepdim=True).numpy(), items.shape[1], axis=1)
        return Predictions(items, scores.astype(np.float64), (items >= 0).cumprod(axis=1).sum(axis=1))
