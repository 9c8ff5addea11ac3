"""The task `next`: a row has one target, a response names one title, and a beam search gives the ranked list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from recalign.api import Predictions, Row, UserError
from recalign.tasks.task import Shape, Task

if TYPE_CHECKING:
    from recalign.api import Engine

BEAMS = 10
"""Titles of a ranked list, and beams of the search that validation and reports decode by (BEAR's setting)."""


class NextTask(Task):
    """One target per row; a response is one title."""

    name = "next"
    summary = "one target per row"
    decoders = ("beam", "exact", "greedy")

    def shape(self, targets: int | None, stride: int | None, list_length: int | None, candidates: int = 0) -> Shape:
        """One target and one title; a training window at every event.

        Raises:
            UserError: more than one target or title is asked for.
        """
        if (targets or 1, list_length or 1) != (1, 1):
            raise UserError(
                f"The next task has one target and one title a response, not {targets or 1} and {list_length or 1}.",
                "Pass --task list.",
            )
        return Shape(targets=1, stride=stride or 1, list_length=1)

    def list_size(self, list_length: int) -> int:
        """Return 10: a beam search ranks so many titles."""
        return BEAMS

    def writable_length(self, list_length: int, size: int, decoder: str) -> int:
        """Return 1: a response is one title, whatever the size of the list."""
        return 1

    def decode(self, engine: Engine, rows: Sequence[Row]) -> Predictions:
        """Search by as many beams as every row has items left, 10 at most."""
        width = min(BEAMS, *(len(engine.catalogue) - len(engine.excluded(row)) for row in rows))
        items, scores = (part.numpy() for part in engine.beam(rows, width=width, size=width))
        return Predictions(items, scores.astype(np.float64), (items >= 0).cumprod(axis=1).sum(axis=1))
