"""Which candidates of which training rows a teacher is asked about, and with what words."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from recalign.api import RATIONALE, Case, Row
from recalign.data.dataset import PreparedDataset
from recalign.errors import UserError
from recalign.tasks import find_task
from recalign.text.prompts import Template
from recalign.text.question_prompts import question_text


class Cases(Sequence[Case]):
    """Cases that are made when they are looked at: reading a row and rendering its prompt take a while.

    Args:
        questions: the questions that rows ask, as `Task.questions` returns them.
        dataset: that the rows are of.
        template: by which they are put into words.
        places: which of the questions; None: all.
    """

    def __init__(
        self,
        questions: Sequence[Row],
        dataset: PreparedDataset,
        template: Template,
        places: Sequence[int] | None = None,
    ) -> None:
        self.questions, self.dataset, self.template = questions, dataset, template
        self.places: Sequence[int] = range(len(questions)) if places is None else places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if isinstance(index, slice):
            return Cases(self.questions, self.dataset, self.template, self.places[index])
        row = self.questions[self.places[index]]
        assert row.question is not None, "cases are made of questions"
        return Case(row, row.question.item, self._text(row))

    def _text(self, row: Row) -> str:
        return question_text(self.template, self.dataset.catalogue, row, task=self.dataset.task)

    def without(self, answered: Collection[tuple[int, int]]) -> Cases:
        """Return the cases that are not among those, by row and item."""
        if not answered:
            return self
        left = [place for place in self.places if _key(self.questions[place]) not in answered]
        return Cases(self.questions, self.dataset, self.template, left)


def cases_of(dataset: PreparedDataset, template: Template, *, rows: int | None, negatives: int, seed: int) -> Cases:
    """Choose the candidates that a teacher is asked about: of each row its positive and some negatives.

    Args:
        dataset: of the rank task.
        template: by which they are put into words.
        rows: training rows to draw; None: all.
        negatives: of each row.
        seed: of both draws.

    Raises:
        UserError: the dataset's task asks about no candidates; a template that puts no candidate into words.
    """
    every: Sequence[Row] = dataset.rows("train")
    if rows is not None and rows < len(every):
        chosen = np.random.default_rng([seed, 22]).permutation(len(every))[:rows]
        every = [every[int(index)] for index in np.sort(chosen)]
    questions = find_task(dataset.task).questions(every, RATIONALE, negatives, seed)
    if questions[0].question is None:
        raise UserError(
            f"The rows of {dataset.path} ask about no candidates: its task is '{dataset.task}'.",
            "Prepare a dataset with --task rank.",
        )
    cases = Cases(questions, dataset, template)
    cases[0]  # a template that does not fit is told before anything else
    return cases


def _key(row: Row) -> tuple[int, int]:
    assert row.question is not None
    return row.index, row.question.item
