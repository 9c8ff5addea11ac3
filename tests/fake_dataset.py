"""A tiny prepared dataset, written without `prepare`, for tests of what reads one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from datasets import Dataset

from recalign.data.dataset import PreparedDataset

NOUNS = ["Ship", "Robot", "Ghost", "Knight"]
ADJECTIVES = ["Red", "Old", "Lost", "Quiet", "Iron"]
TITLES = [f"{noun} {adjective}" for noun in NOUNS for adjective in ADJECTIVES]


def write_dataset(
    path: Path,
    *,
    titles: list[str] = TITLES,
    item_ids: list[str] | None = None,
    identifier: str = "title",
    task: str = "list",
    list_length: int = 3,
    history: int = 5,
    users: int = 24,
    texts: list[str] | None = None,
) -> PreparedDataset:
    """Write users who walk through the catalogue in steps of one, each from another start; liked = even item.

    In the rank task the target is liked, and stands among `list_length` candidates, which come in random order.
    """
    item_ids = item_ids or [str(100 + index) for index in range(len(titles))]
    path.mkdir(parents=True)
    pl.DataFrame(
        {
            "item_id": item_ids,
            "title": titles,
            "genres": [[title.split()[0]] if title.split() else [] for title in titles],
            "text": texts or [""] * len(titles),
            "popularity": [1 + index for index in range(len(titles))],
        },
        schema_overrides={"popularity": pl.Int64},
    ).write_parquet(path / "items.parquet")
    rank = task == "rank"
    targets = 1 if task in ("next", "rank") else list_length + 1
    for split, start, count in (("train", 0, users), ("valid", 3, 6), ("test", 7, 6)):
        walks = [(np.arange(history + targets) + start + user) % len(titles) for user in range(count)]
        (path / split).mkdir()
        records = Dataset.from_dict(
            {
                "user_id": [f"u{user}" for user in range(count)],
                "history": [walk[:history].astype(np.int32) for walk in walks],
                "targets": [walk[history:].astype(np.int32) for walk in walks],
                "gains": [((walk[history:] % 2 == 0) | rank).astype(np.float32) for walk in walks],
                "timestamp": [float(user) for user in range(count)],
                **(_ranked(walks, history, list_length, len(titles)) if rank else {}),
            }
        )
        table = records.data.table
        with pa.OSFile(str(path / split / "data.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    options = dict(
        task=task,
        identifier=identifier,
        list_length=1 if task == "next" else list_length,
        exclude_history=not rank,
    )
    (path / "dataset.json").write_text(
        json.dumps({"format": 1, "hash": f"{identifier}-{task}-{len(titles)}", "options": options, "counts": {}})
    )
    return PreparedDataset(path)


def _ranked(walks: list[np.ndarray], history: int, size: int, items: int) -> dict[str, list]:
    """Candidates, times, ratings and profiles of the rank task's rows."""
    random = np.random.default_rng(0)
    sets = [random.permutation((walk[history] + 3 * np.arange(size)) % items).astype(np.int32) for walk in walks]
    return {
        "candidates": sets,
        "times": [1.6e9 + 86_400.0 * np.arange(history) for _ in walks],
        "ratings": [(1 + walk[:history] % 5).astype(np.float32) for walk in walks],
        "profile": [f"user number {place}" for place in range(len(walks))],
    }
