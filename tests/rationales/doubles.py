"""A catalogue, rows with candidates, and teachers that answer as they are told."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from recalign.api import RATIONALE, Case, Catalogue, Reply, Row, Teacher

NAMES = [f"Title {item}" for item in range(6)]
CATALOGUE = Catalogue(
    [str(100 + item) for item in range(6)],
    NAMES,
    [("Drama",), ("Comedy",), ("Drama", "Comedy"), (), ("Drama",), ("Comedy",)],
    [""] * 6,
    np.arange(6)[::-1].astype(np.int64),
)


def make_row(index: int, history=(0,), target=2, candidates=(2, 3, 4)) -> Row:
    gains = np.ones(1)
    return Row(
        index, f"u{index}", np.array(history, dtype=np.int64), np.array([target]), gains, 0.0, np.array(candidates)
    )


def make_cases(rows: int = 4) -> list[Case]:
    """Of every row its positive, item 2, and a negative, item 3."""
    return [Case(make_row(index), item, f"row {index}, item {item}?") for index in range(rows) for item in (2, 3)]


def right(case: Case) -> Reply:
    """The right answer, for 10 + 5 tokens."""
    positive = case.item in case.row.relevant
    return Reply(RATIONALE.text(positive, f"Because of {case.item}."), 10, 5)


class Scripted(Teacher):
    """Answers by a function, and counts what it is asked."""

    def __init__(self, answer: Callable[[Case], Reply] = right, *, batch_size=1, concurrency=1, bound=(10, 5)):
        super().__init__(name="scripted")
        self.answer, self.bound = answer, bound
        self._batch_size, self._concurrency = batch_size, concurrency
        self.asked: list[tuple[int, int]] = []
        self._lock = threading.Lock()

    @property
    def batch_size(self):
        return self._batch_size

    @property
    def concurrency(self):
        return self._concurrency

    def most_tokens(self, case):
        return self.bound

    def price(self, prompt_tokens, completion_tokens):
        return prompt_tokens + 2 * completion_tokens

    def reply(self, cases):
        with self._lock:
            self.asked += [(case.row.index, case.item) for case in cases]
        return [self.answer(case) for case in cases]
