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
    candidates: int = 0,
) -> PreparedDataset:
    """Write users who walk through the catalogue in steps of one, each from another start; liked = even item.

    Of the rank task, the target is always liked, and so many candidates are it and others, in a random order.
    """
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
    targets = 1 if task in {"next", "rank"} else list_length + 1
    for split, start, count in (("train", 0, users), ("valid", 3, 6), ("test", 7, 6)):
        walks = [(np.arange(history + targets) + start + user) % len(titles) for user in range(count)]
        (path / split).mkdir()
        ranked = (
            {}
            if not candidates
            else {"candidates": [_candidates(walk, history, candidates, len(titles)) for walk in walks]}
        )
        records = Dataset.from_dict(
            {
                "user_id": [f"u{user}" for user in range(count)],
                "history": [walk[:history].astype(np.int32) for walk in walks],
                "targets": [walk[history:].astype(np.int32) for walk in walks],
                "gains": [((walk[history:] % 2 == 0) | (task == "rank")).astype(np.float32) for walk in walks],
                "timestamp": [float(user) for user in range(count)],
                **ranked,
            }
        )
        table = records.data.table
        with pa.OSFile(str(path / split / "data.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    lengths = {"next": 1, "rank": candidates}
    options = dict(
        task=task,
        identifier=identifier,
        list_length=lengths.get(task, list_length),
        exclude_history=task != "rank",
    )
    (path / "dataset.json").write_text(
        json.dumps({"format": 1, "hash": f"{identifier}-{task}-{len(titles)}", "options": options, "counts": {}})
    )
    return PreparedDataset(path)


def _candidates(walk, history, count, items):
    """A row's target and other items, in an order that the walk decides and that tells nothing."""
    random = np.random.default_rng(walk[:history])
    others = np.setdiff1d(np.arange(items), walk)
    return random.permutation(np.append(random.choice(others, count - 1, replace=False), walk[history])).astype(
        np.int32
    )
