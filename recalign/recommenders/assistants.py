"""Assistants: finished runs of `recalign baseline`, whose scores of all items decoders and rewards may listen to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recalign.api import Catalogue, Recommender, Row
from recalign.errors import UserError
from recalign.plugins.registry import blamed, create
from recalign.recommenders.recommend import checked_scores
from recalign.workspace import RunFolder

RECOMMENDER = "recommender"
"""Folder of a baseline's run that holds what its recommender learnt."""


class Assistant:
    """A fitted recommender that scores rows of any split of a dataset.

    Args:
        recommender: fitted or loaded.
        catalogue: of the dataset that it assists on.
    """

    def __init__(self, recommender: Recommender, catalogue: Catalogue) -> None:
        self.recommender, self.catalogue = recommender, catalogue

    def scores(self, rows: Sequence[Row]) -> np.ndarray:
        """Return the score of every item for B rows: float64 [B, I], higher is better.

        Raises:
            UserError: the recommender raises, or returns another shape or NaN.
        """
        return checked_scores(self.recommender, rows, len(self.catalogue))


def identity(catalogue: Catalogue) -> dict[str, str]:
    """Return what a baseline was made for: the items, and how often each occurs in training, as short hashes."""
    counts = hashlib.sha256(catalogue.popularity.tobytes()).hexdigest()[:16]
    return {"catalogue": catalogue.fingerprint, "training": counts}


def load_assistant(folder: Path, catalogue: Catalogue) -> Assistant:
    """Load a baseline's recommender from its run, whatever it is; the dataset that it was fitted on need not be there.

    Args:
        folder: a run of `recalign baseline`.
        catalogue: of the dataset that it is to assist on.

    Raises:
        UserError: no such run, an unfinished one, one for other items or other training interactions, a recommender
            that is not installed, one whose files are damaged.
    """
    record = RunFolder(folder).record
    if record.get("command") != "baseline":
        what = f"a run of {record['command']}" if record else "no run folder"
        raise UserError(
            f"The assistant {folder} is {what}.", "Make one with `recalign baseline sasrec`, and name its folder."
        )
    if record.get("status") != "done":
        raise UserError(f"The assistant {folder} is unfinished.", "Run its `recalign baseline` again.")
    _check(folder, record["results"], catalogue)
    recommender = create("recommender", record["options"]["recommender"], record["options"]["params"])
    assert isinstance(recommender, Recommender)
    with blamed("recommender", recommender, "load"):
        recommender.load(Path(folder) / RECOMMENDER, catalogue)
    return Assistant(recommender, catalogue)


def _check(folder: Path, results: dict[str, Any], catalogue: Catalogue) -> None:
    for key, fault in (
        ("catalogue", "was made for another catalogue"),
        ("training", "has seen other training interactions (another split or fold of the same items)"),
    ):
        if results.get(key) != (wanted := identity(catalogue)[key]):
            raise UserError(
                f"The assistant {folder} {fault}: {results.get(key)}, not {wanted}.",
                "Run `recalign baseline` on the dataset that you decode.",
            )
