"""The trial of decoders: lists for the embedded dataset's rows, by every task that they serve."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from recalign.api import INVALID, Decoder, Predictions, Row
from recalign.decoding.batches import contract_problem
from recalign.decoding.engine import PolicyEngine
from recalign.errors import UserError
from recalign.tasks import find_task
from recalign.testing.example import example_engine, example_rows


def problems(decoder: Decoder) -> Iterator[str]:
    """Decode a few rows of each task, together, again and alone; yield one line per problem."""
    for task in sorted(decoder.tasks):
        engine, rows = example_engine(task), example_rows(task)
        size = find_task(task).checked_size(None, engine.list_length, len(engine.catalogue))
        try:
            found = decoder.decode(engine, rows, size)
        except UserError:  # it wants what no default can name, such as an assistant or a trained head
            continue
        problem = contract_problem(found, len(rows), size, len(engine.catalogue))
        if problem:
            yield f"decode (task {task}) {problem}"
            continue
        yield from (f"decode (task {task}) {line}" for line in _list_problems(found, rows, engine))
        yield from (f"decode (task {task}) {line}" for line in _repeat_problems(decoder, found, rows, engine, size))


def _list_problems(found: Predictions, rows: Sequence[Row], engine: PolicyEngine) -> Iterator[str]:
    """Look at what the lists hold: order of scores, items twice, and items that the user must not be recommended."""
    for row, items, scores, length in zip(rows, found.items, found.scores, found.lengths, strict=True):
        listed, marks = items[:length], scores[:length]
        valid = listed[listed != INVALID]
        if (np.diff(marks) > 0).any():
            yield f"returns scores that rise along a list: {marks.tolist()}; they are in order, the highest first"
            return
        if len(np.unique(valid)) < len(valid):
            yield f"returns an item twice in a list: {valid.tolist()}"
            return
        refused = np.intersect1d(valid, engine.excluded(row))
        if len(refused):
            yield (
                f"recommends items that the row must not be recommended ({refused.tolist()}): `engine.excluded(row)` "
                "says which, such as those of the history"
            )
            return


def _repeat_problems(
    decoder: Decoder, found: Predictions, rows: list[Row], engine: PolicyEngine, size: int
) -> Iterator[str]:
    """Look whether the same rows get the same lists again, and a row alone those that it gets among others."""
    if not np.array_equal(decoder.decode(engine, rows, size).items, found.items):
        yield "returns two lists for the same row and seed: key random numbers by `engine.seed` and `row.index`"
        return
    alone = np.asarray(decoder.decode(engine, rows[1:2], size).items)[0]
    beside = found.items[1][: len(alone)]
    if not np.array_equal(alone[: len(beside)], beside):
        yield f"returns another list for a row alone ({alone.tolist()}) than beside others ({beside.tolist()})"
