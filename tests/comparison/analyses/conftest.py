"""Eight rows whose positives training saw 7, 3, 1 and 0 times, and lists written by hand."""

import shutil

import numpy as np
import pytest

from recalign.api import Predictions
from recalign.runs.predictions import write_predictions
from tests.evaluation.prepared import write_dataset, write_decoded, write_small, write_split

TARGETS = [0, 0, 1, 1, 2, 2, 3, 3]
LENGTHS = [1, 2, 3, 4, 5, 8, 9, 1]
SEEN = {0: 7, 1: 3, 2: 1}
WRONG = 5


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The dataset: its test rows in the order of TARGETS and LENGTHS."""
    folder = tmp_path_factory.mktemp("analyses") / "data"
    rows = [
        (f"u{n}", [4] * size, [item], [1.0], 9.0) for n, (item, size) in enumerate(zip(TARGETS, LENGTHS, strict=True))
    ]
    titles = [f"title {item}" for item in range(6)]
    dataset = write_dataset(folder, titles, [("t", 0, 1)], rows, exclude_history=False)
    shutil.rmtree(folder / "train")
    training = [(f"t{n}", [4], [item], [1.0], 1.0) for n, item in enumerate(i for i in SEEN for _ in range(SEEN[i]))]
    write_split(folder / "train", [*training, ("t", [4], [3], [0.0], 1.0)])  # seen, but no positive
    return dataset


def lists(hits, second=()):
    """Lists of two that name the target first in the rows `hits`, second in the rows `second`, else not at all."""
    return [
        [item, WRONG] if row in hits else [WRONG, item] if row in second else [WRONG, 4]
        for row, item in enumerate(TARGETS)
    ]


@pytest.fixture
def decoded(data, tmp_path):
    """Write a decode run with hits in some rows, and varied rows: {(variation, value): (hits, second, rows)}."""

    def write(name, hits, varied=None, **options):
        folder = write_decoded(tmp_path / name, data, lists(hits), **options)
        every = list(data.rows("test"))
        for (variation, value), (first, second, rows) in (varied or {}).items():
            items = np.array(lists(first, second))[rows]
            predictions = Predictions(items, np.zeros(items.shape), np.full(len(items), 2))
            where = folder / "variations" / f"{variation}-{value}"
            write_predictions(where, predictions, [every[row] for row in rows], data.catalogue)
        return folder

    return write


@pytest.fixture
def small(tmp_path):
    """Six items and four test rows, the last of which has no relevant target; training has the same rows."""
    return write_small(tmp_path / "small")
