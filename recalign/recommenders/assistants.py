"""Assistants: finished runs of `recalign baseline`, whose scores of all items decoders may listen to."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from recalign.api import Catalogue
from recalign.errors import UserError
from recalign.recommenders.simple import BASELINES, SIMPLE, Scorer, Training
from recalign.workspace import RunFolder

RECOMMENDER = "recommender"
"""Folder of a baseline's run that holds a trained model."""


def identity(catalogue: Catalogue) -> dict[str, str]:
    """What a baseline was made for: the items, and how often each occurs in training, as short hashes."""
    counts = hashlib.sha256(catalogue.popularity.tobytes()).hexdigest()[:16]
    return {"catalogue": catalogue.fingerprint, "training": counts}


def load_assistant(folder: Path, catalogue: Catalogue) -> Scorer:
    """Load a baseline's scorer from its run; it scores any rows, of any split.

    Args:
        folder: a run of `recalign baseline`.
        catalogue: of the dataset that it is to assist on.

    Raises:
        UserError: no such run, an unfinished one, one for other items or other training interactions, a damaged model,
            or, where the baseline is made anew, a dataset that is gone or changed.
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
    name, options = record["options"]["baseline"], record["options"]
    if name in SIMPLE:
        return BASELINES[SIMPLE[name]](Training.of(_dataset(folder, record), options["seed"]))
    from recalign.recommenders.sequential import SequentialModel

    return SequentialModel.load(Path(folder) / RECOMMENDER).scores


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


def _dataset(folder: Path, record: dict[str, Any]) -> Any:
    from recalign.data.dataset import PreparedDataset

    dataset = PreparedDataset(Path(record["options"]["data"]))
    if dataset.hash != record["inputs"]["data"]:
        raise UserError(
            f"The assistant {folder} was made from {dataset.path}, which has changed since.",
            "Run its `recalign baseline` again.",
        )
    return dataset
