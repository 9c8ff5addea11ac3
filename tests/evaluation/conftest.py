"""Small prepared datasets, written by hand in the documented format."""

import json

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from recalign.data.dataset import PreparedDataset


def write_split(folder, rows):
    """Write rows (user_id, history, targets, gains, timestamp[, candidates]) as an Arrow stream."""
    columns = {
        "user_id": pa.array([row[0] for row in rows], pa.string()),
        "history": pa.array([row[1] for row in rows], pa.list_(pa.int32())),
        "targets": pa.array([row[2] for row in rows], pa.list_(pa.int32())),
        "gains": pa.array([row[3] for row in rows], pa.list_(pa.float32())),
        "timestamp": pa.array([row[4] for row in rows], pa.float64()),
    }
    if any(len(row) > 5 for row in rows):
        columns["candidates"] = pa.array([row[5] for row in rows], pa.list_(pa.int32()))
    table = pa.table(columns)
    folder.mkdir(parents=True)
    with pa.OSFile(str(folder / "data.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


@pytest.fixture
def write_dataset(tmp_path):
    """Write a dataset folder and open it."""

    def write(titles, events, rows, *, genres=None, name="data", digest="abc", exclude_history=True, **options):
        folder = tmp_path / name
        counts = np.bincount([item for _, item, _ in events], minlength=len(titles))
        folder.mkdir()
        pl.DataFrame(
            {
                "item_id": [f"i{index}" for index in range(len(titles))],
                "title": titles,
                "genres": genres or [[] for _ in titles],
                "text": [""] * len(titles),
                "popularity": counts,
            },
            schema_overrides={"genres": pl.List(pl.String)},
        ).write_parquet(folder / "items.parquet")
        pl.DataFrame(
            {
                "user_id": [user for user, _, _ in events],
                "item": [item for _, item, _ in events],
                "timestamp": [float(time) for _, _, time in events],
                "rating": [None for _ in events],
                "gain": [1.0 for _ in events],
            },
            schema={
                "user_id": pl.String,
                "item": pl.Int32,
                "timestamp": pl.Float64,
                "rating": pl.Float64,
                "gain": pl.Float64,
            },
        ).write_parquet(folder / "interactions.parquet")
        for split in ("train", "valid", "test"):
            write_split(folder / split, rows)
        settings = {"task": "list", "identifier": "title", "list_length": 5, "exclude_history": exclude_history}
        info = {"format": 1, "hash": digest, "source": "hand", "options": {**settings, **options}}
        (folder / "dataset.json").write_text(json.dumps(info))
        return PreparedDataset(folder)

    return write


@pytest.fixture
def small(write_dataset):
    """Six items, three training users, four test rows; item 5 is in no training interaction."""
    sequences = {"t1": [0, 1, 2], "t2": [0, 1, 3], "t3": [0, 4]}
    events = [(user, item, 10 * place) for user, items in sequences.items() for place, item in enumerate(items)]
    rows = [
        ("u0", [0], [1, 2], [1.0, 1.0], 100.0),
        ("u1", [0, 1], [2, 5], [1.0, 0.0], 100.0),
        ("u2", [4], [5], [1.0], 100.0),
        ("u3", [2], [0, 1], [0.0, 0.0], 100.0),
    ]
    titles = ["red pen", "red ink", "blue ink", "blue pen", "green desk", "green chair"]
    genres = [["pen"], ["ink"], ["ink"], ["pen"], ["desk"], ["desk"]]
    return write_dataset(titles, events, rows, genres=genres)
