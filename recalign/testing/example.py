"""The embedded dataset at a size that takes a second: prepared once per process and task, with a model bound to it."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from recalign.data.dataset import PreparedDataset, Row

if TYPE_CHECKING:
    import polars as pl

    from recalign.api import RawData
    from recalign.decoding.engine import PolicyEngine

SOURCE = "synthetic"
SIZE = {"items": 40, "genres": 4, "users": 60, "events": 14}
MODEL = "builtin:tiny,hidden=32"


@cache
def example_dataset(task: str = "next") -> PreparedDataset:
    """Prepare the embedded dataset for a task, 60 users and 40 items, in a temporary folder of this process.

    Args:
        task: `next`, `list` or `rank`.
    """
    from recalign import console
    from recalign.preparation.pipeline import prepare_dataset

    folder = _folder() / task
    with console.silence():
        prepare_dataset(SOURCE, None, folder, params=SIZE, options={"task": task})
    return PreparedDataset(folder)


@cache
def example_engine(task: str = "next") -> PolicyEngine:
    """Return an engine over the embedded dataset, with a tiny model of random weights.

    Args:
        task: `next`, `list` or `rank`.
    """
    from recalign.decoding.engine import PolicyEngine
    from recalign.models.policy import load_policy

    dataset = example_dataset(task)
    policy = load_policy(MODEL, dataset)
    return PolicyEngine(policy, dataset.catalogue, exclude_history=dataset.excludes_history())


def example_rows(task: str = "next") -> list[Row]:
    """Return six rows of the embedded dataset's test split, one of them without history where the task allows that."""
    from dataclasses import replace

    import numpy as np

    rows: list[Row] = example_dataset(task).rows("test")[:6]
    nothing = np.zeros(0, dtype=np.int64)
    bare = replace(rows[-1], history=nothing, earlier=nothing)
    return rows if rows[-1].candidates is not None else [*rows[:-1], bare]


@cache
def example_raw() -> RawData:
    """Return the embedded dataset's raw interactions and items, as its source reads them."""
    from recalign.plugins.registry import create

    raw: RawData = create("source", SOURCE, SIZE).read(None, 0)
    return raw


def example_interactions() -> pl.DataFrame:
    """Return the raw interactions: user_id, item_id, timestamp (whole seconds), rating."""
    import polars as pl

    events = example_raw().events
    assert events is not None
    ids = [pl.col(name).cast(pl.String) for name in ("user_id", "item_id")]
    numbers = [pl.col("timestamp").floor().cast(pl.Float64), pl.col("rating").cast(pl.Float64)]
    return events.select(*ids, *numbers).collect()


def example_items() -> pl.DataFrame:
    """Return the raw items: item_id, title, genres (lists of names)."""
    return example_raw().items.select("item_id", "title", "genres").collect()


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="recalign-example-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
