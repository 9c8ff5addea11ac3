"""A file of rationales as rows that training learns from: each asks about one candidate and knows its answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from recalign.api import RATIONALE, Question, Row
from recalign.data.dataset import PreparedDataset
from recalign.rationales.records import check_rationales, read_rationales

HELD_OUT = 0.1
"""Share of a file's rows that validate."""


@dataclass(frozen=True)
class RationaleRows:
    """What a file teaches.

    Args:
        train: rows with a question and its rationale.
        valid: likewise, of other rows of the dataset; the same where the file is about a single one.
        texts: all answers as they are written.
    """

    train: list[Row]
    valid: list[Row]
    texts: list[str]


def rationale_rows(file: Path, dataset: PreparedDataset, seed: int) -> RationaleRows:
    """Read a file of rationales, hold it against a dataset, and keep a tenth of its rows for validation.

    Args:
        file: as `read_rationales` takes it.
        dataset: that its rows and items are of.
        seed: of the draw of validation rows.

    Raises:
        UserError: see `read_rationales` and `check_rationales`.
    """
    rationales = read_rationales(file)
    rows = dataset.rows("train")
    check_rationales(rationales.values(), rows, dataset.catalogue.titles, file)
    indices = sorted({rationale.row for rationale in rationales.values()})
    count = max(1, round(HELD_OUT * len(indices)))
    held_out = {indices[place] for place in np.random.default_rng([seed, 23]).permutation(len(indices))[:count]}
    asking = [
        replace(rows[each.row], question=Question(each.item, RATIONALE, RATIONALE.read(each.text).rationale))
        for each in rationales.values()
    ]
    valid = [row for row in asking if row.index in held_out]
    train = [row for row in asking if row.index not in held_out] or valid
    return RationaleRows(train, valid, [each.text for each in rationales.values()])
