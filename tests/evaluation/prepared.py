"""Small prepared datasets and decode runs, written by hand in the documented format."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from recalign.api import Predictions
from recalign.data.dataset import PreparedDataset
from recalign.runs.lineage import KEY, of_model
from recalign.runs.predictions import write_predictions
from recalign.workspace import RunFolder


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


def write_dataset(
    folder, titles, events, rows, *, genres=None, digest="abc", measured="", exclude_history=True, **options
):
    """Write a dataset folder, its three splits alike, and open it."""
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
    info |= {"measured_hash": measured} if measured else {}
    (folder / "dataset.json").write_text(json.dumps(info))
    return PreparedDataset(folder)


def write_small(folder, digest="abc", users="u", bare=False, targets=None, gains=None, **options):
    """Six items (bare: without genres), three training users, four test rows; no training interaction has item 5."""
    sequences = {"t1": [0, 1, 2], "t2": [0, 1, 3], "t3": [0, 4]}
    events = [(user, item, 10 * place) for user, items in sequences.items() for place, item in enumerate(items)]
    rows = [
        (f"{users}0", [0], [1, 2], [1.0, 1.0], 100.0),
        (f"{users}1", [0, 1], [2, 5], [1.0, 0.0], 100.0),
        (f"{users}2", [4], [5], [1.0], 100.0),
        (f"{users}3", [2], [0, 1], [0.0, 0.0], 100.0),
    ]
    if targets is not None:
        rows = [(*row[:2], *answer, row[4]) for row, *answer in zip(rows, targets, gains, strict=True)]
    titles = ["red pen", "red ink", "blue ink", "blue pen", "green desk", "green chair"]
    genres = [["pen"], ["ink"], ["ink"], ["pen"], ["desk"], ["desk"]]
    return write_dataset(folder, titles, events, rows, genres=None if bare else genres, digest=digest, **options)


def write_decoded(
    folder, dataset, lists, *, seed=0, split="test", model_options=None, oracle=False, rows=None, cost=None
):
    """Write a model run with a decode run in it, as `align` and `decode` do; return the decode folder."""
    model = RunFolder(folder)
    options = {"seed": seed, "data": str(dataset.path), **(model_options or {})}
    model.begin("align", options, {"data": dataset.hash}, facts={"seed": seed})
    model.finish({"seconds": 60.0})
    decoded = RunFolder(Path(folder) / "decode-greedy-test")
    options = {"model": str(folder), "data": str(dataset.path), "split": split, "decoder": "greedy"}
    lineage = of_model(str(folder), data=str(dataset.path), split=split, size=len(lists[0]) if lists else None)
    decoded.begin("decode", options, {"data": dataset.hash}, facts={"seed": seed, KEY: lineage.as_dict()})
    items = np.array(lists)
    predictions = Predictions(items, np.zeros(items.shape), np.full(len(items), items.shape[1]))
    write_predictions(decoded.path, predictions, list(dataset.rows(split)) if rows is None else rows, dataset.catalogue)
    decoded.finish({"oracle": oracle, "cost": cost or {"prompts": 4, "seconds": 2.0, "forward_passes": 12}})
    return decoded.path
