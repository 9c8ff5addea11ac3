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
) -> PreparedDataset:
    """Write users who walk through the catalogue in steps of one, each from another start; liked = even item."""
    item_ids = item_ids or [str(100 + index) for index in range(len(titles))]
    path.mkdir(parents=True)
    pl.DataFrame(
        {
            "item_id": item_ids,
            "title": titles,
            "genres": [[title.split()[0]] if title.split() else [] for title in titles],
            "text": [""] * len(titles),
            "popularity": [1 + index for index in range(len(titles))],
        },
        schema_overrides={"popularity": pl.Int64},
    ).write_parquet(path / "items.parquet")
    targets = 1 if task == "next" else list_length + 1
    for split, start, count in (("train", 0, users), ("valid", 3, 6), ("test", 7, 6)):
        walks = [(np.arange(history + targets) + start + user) % len(titles) for user in range(count)]
        (path / split).mkdir()
        records = Dataset.from_dict(
            {
                "user_id": [f"u{user}" for user in range(count)],
                "history": [walk[:history].astype(np.int32) for walk in walks],
                "targets": [walk[history:].astype(np.int32) for walk in walks],
                "gains": [(walk[history:] % 2 == 0).astype(np.float32) for walk in walks],
                "timestamp": [float(user) for user in range(count)],
            }
        )
        table = records.data.table
        with pa.OSFile(str(path / split / "data.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    options = dict(
        task=task, identifier=identifier, list_length=1 if task == "next" else list_length, exclude_history=True
    )
    (path / "dataset.json").write_text(
        json.dumps({"format": 1, "hash": f"{identifier}-{task}-{len(titles)}", "options": options, "counts": {}})
    )
    return PreparedDataset(path)
