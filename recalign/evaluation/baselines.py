"""Recommenders beside a model: their lists for the same rows, cached in the workspace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recalign import console
from recalign.api import Predictions, Recommender, Row
from recalign.errors import UserError
from recalign.plugins.registry import create, find_entry
from recalign.reading import read_arrays, reading
from recalign.recommenders.recommend import fit, recommend
from recalign.removal import discard
from recalign.workspace import atomic, content_hash, home

if TYPE_CHECKING:
    from recalign.data.dataset import PreparedDataset

PARTS = ("items", "scores", "lengths")
RECOMMENDERS = ("popularity", "recent-popularity", "item-knn", "tf-idf", "random-unseen")
"""Recommenders that stand beside a model unless others are named: each is fitted in seconds."""


def recommend_beside(
    names: Sequence[str],
    dataset: PreparedDataset,
    split: str,
    rows: Sequence[Row],
    size: int,
    *,
    exclude_history: bool,
    seed: int = 0,
) -> dict[str, Predictions]:
    """Recommend with each recommender for the rows that a model answered; lists are cached and used again.

    Args:
        names: of recommenders; each is fitted with its default parameters.
        dataset: what they learn from.
        split: whose rows these are.
        rows: [U].
        size: K.
        exclude_history: whether items of the history are left out, as for the model.
        seed: of what they draw.

    Returns:
        Name in tables -> U lists, in the order of the names.

    Raises:
        UserError: an unknown recommender, one that fails, two of one name in tables.
    """
    chosen = {name: create("recommender", name) for name in names}
    asked = {
        "dataset": dataset.hash,
        "split": split,
        "rows": [row.index for row in rows],
        "size": size,
        "exclude_history": exclude_history,
        "seed": seed,
    }
    file = home() / "baselines" / f"{content_hash(asked)}.npz"
    cached = _read_lists(file)
    found: dict[str, Predictions] = {}
    fresh = False
    with console.progress("baselines", len(chosen)) as advance:
        for name, recommender in chosen.items():
            assert isinstance(recommender, Recommender)
            key = _key(name)
            if key not in cached:
                fit(recommender, dataset, seed)
                items = len(dataset.catalogue)
                cached[key] = recommend(recommender, rows, size, items, exclude_history=exclude_history)
                fresh = True
            if recommender.title in found:
                raise UserError(
                    f"Two recommenders are called '{recommender.title}' in tables; one of them is {name}.",
                    "Name one of them.",
                )
            found[recommender.title] = cached[key]
            advance(1)
    if fresh:
        _write_lists(file, cached)
    return found


def _key(name: str) -> str:
    """Tell the lists of one version of a package from those of another."""
    entry = find_entry("recommender", name)
    return f"{name} {entry.package} {entry.version}"


def _read_lists(file: Path) -> dict[str, Predictions]:
    """Read cached lists, or nothing where there is no cache."""
    if not file.is_file():
        return {}
    try:
        with reading(file, ""):
            arrays = read_arrays(file)
            names = {key.rpartition("/")[0] for key in arrays}
            return {name: Predictions(*(arrays[f"{name}/{part}"] for part in PARTS)) for name in names}
    except UserError as error:
        console.warn(f"{error.what} The baselines are computed again.")
        discard(file, inside=file.parent)
        return {}


def _write_lists(file: Path, lists: dict[str, Predictions]) -> None:
    """Write lists for the next evaluation of the same rows."""
    arrays: dict[str, np.ndarray] = {}
    for name, found in lists.items():
        arrays |= {f"{name}/items": found.items, f"{name}/scores": found.scores, f"{name}/lengths": found.lengths}
    with atomic(file) as temporary, open(temporary, "wb") as sink:
        np.savez(sink, **arrays)  # type: ignore[arg-type]
