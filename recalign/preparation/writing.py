"""Writing a prepared dataset: Arrow and Parquet files and the hash of their content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recalign.data.arrays import ranges
from recalign.data.parquet import write_parquet
from recalign.preparation.events import EventLog
from recalign.preparation.sliding_windows import SlidingWindows

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

BATCH = 65_536
"""Rows a record batch: bounds the memory that writing takes."""


class Digest:
    """Hash of content, fed piece by piece: independent of file formats, library versions, paths and clocks.

    A second hash is of what models are measured by alone: items, training interactions, users and targets, not how
    items are written or how much of a history is shown. Where it is the same, `compare` takes different datasets.
    """

    def __init__(self) -> None:
        self._whole, self._measured = hashlib.sha256(), hashlib.sha256()

    def texts(self, values: Iterable[str], *, measured: bool = True) -> None:
        """Add strings."""
        self._add("\x1f".join(values).encode() + b"\x1e", measured)

    def array(self, values: np.ndarray, *, measured: bool = True) -> None:
        """Add numbers, with their type and shape."""
        content = f"{values.dtype.str}{values.shape}".encode() + np.ascontiguousarray(values).tobytes()
        self._add(content, measured)

    def _add(self, content: bytes, measured: bool) -> None:
        self._whole.update(content)
        if measured:
            self._measured.update(content)

    def hashes(self) -> dict[str, str]:
        """The hashes so far, 16 hexadecimal digits each: `hash` of all, `measured_hash`."""
        return {"hash": self._whole.hexdigest()[:16], "measured_hash": self._measured.hexdigest()[:16]}


def write_items(
    folder: Path, items: pl.DataFrame, popularity: np.ndarray, codes: list[np.ndarray] | None, digest: Digest
) -> None:
    """Write `items.parquet`.

    Args:
        folder: of the dataset.
        items: item_id, title, genres, text.
        popularity: [I] training interactions of each item.
        codes: [I] semantic identifiers, or None.
        digest: fed with the content.
    """
    import polars as pl

    frame = items.with_columns(popularity=pl.Series(popularity, dtype=pl.Int64))
    if codes is not None:
        frame = frame.with_columns(code=pl.Series([code.tolist() for code in codes], dtype=pl.List(pl.Int32)))
        digest.texts((" ".join(map(str, code)) for code in codes), measured=False)
    write_parquet(folder / "items.parquet", frame)
    digest.texts(items["item_id"])
    digest.texts(items["title"])
    digest.texts(items["genres"].list.join("\x1d").fill_null(""))
    digest.texts(items["text"])


def write_interactions(folder: Path, log: EventLog, positions: np.ndarray, digest: Digest) -> None:
    """Write `interactions.parquet`: the training interactions, by user and time."""
    import polars as pl

    user = log.user[positions]
    rating = None if log.rating is None else log.rating[positions]
    columns = {
        "user_id": pl.Series(log.users, dtype=pl.String).gather(user),
        "item": log.item[positions],
        "timestamp": log.time[positions],
        "rating": pl.Series(np.full(len(positions), np.nan) if rating is None else rating).fill_nan(None),
        "gain": log.gain[positions],
    }
    write_parquet(folder / "interactions.parquet", pl.DataFrame(columns))
    digest.texts(log.users)
    for values in (user, columns["item"], columns["timestamp"], columns["gain"]):
        digest.array(np.asarray(values))
    if rating is not None:
        digest.array(rating)


def write_rows(
    file: Path,
    windows: SlidingWindows,
    candidates: np.ndarray | None,
    digest: Digest,
    *,
    earlier: bool = False,
    events: bool = False,
    profiles: Sequence[str] | None = None,
) -> None:
    """Write a split as an Arrow stream that `datasets.Dataset.from_file` maps into memory.

    Args:
        file: `SPLIT/data.arrow`.
        windows: the rows.
        candidates: [W, X] or None.
        digest: fed with the content.
        earlier: write what was consumed before each history too.
        events: write when each item of a history was consumed and how it was rated, as far as the log says.
        profiles: [U] what is known of each user, or None.
    """
    import pyarrow as pa

    fields = {
        "user_id": pa.string(),
        "history": pa.list_(pa.int32()),
        "targets": pa.list_(pa.int32()),
        "gains": pa.list_(pa.float32()),
        "timestamp": pa.float64(),
        **({"candidates": pa.list_(pa.int32())} if candidates is not None else {}),
        **({"earlier": pa.list_(pa.int32())} if earlier else {}),
        **({"times": pa.list_(pa.float64())} if events else {}),
        **({"ratings": pa.list_(pa.float32())} if events and windows.log.rating is not None else {}),
        **({"profile": pa.string()} if profiles is not None else {}),
    }
    schema = pa.schema(list(fields.items()))
    users = pa.array(windows.log.users, pa.string())
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for first in range(0, len(windows), BATCH):
            part = windows.take(slice(first, first + BATCH))
            columns = _columns(part, users, digest)
            if candidates is not None:
                block = candidates[first : first + BATCH]
                columns.append(_lists(block.ravel(), np.full(len(block), block.shape[1])))
                digest.array(block)
            if earlier:
                start = part.log.start[part.log.sequence[part.cut]]
                columns.append(_lists(part.log.item[ranges(start, part.lo - start)], part.lo - start))
            if events:
                columns += _events(part, digest)
            if profiles is not None:
                shown = [profiles[user] for user in part.user]
                digest.texts(shown, measured=False)
                columns.append(pa.array(shown, pa.string()))
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _columns(part: SlidingWindows, users: pa.Array, digest: Digest) -> list[pa.Array]:
    """Columns of one batch: user_id, history, targets (no item twice), gains, timestamp."""
    import pyarrow as pa

    log, keep = part.log, part.distinct()
    history_length = part.hi - part.lo
    history = log.item[ranges(part.lo, history_length)]
    target_length, positions = keep.sum(axis=1), part.target_positions[keep]
    targets, gains, times = log.item[positions], log.gain[positions].astype(np.float32), log.time[part.cut]
    for values in (part.user, history_length, history, target_length, targets, gains, times):
        digest.array(values, measured=values is not history_length and values is not history)
    return [
        users.take(pa.array(part.user)),
        _lists(history, history_length),
        _lists(targets, target_length),
        _lists(gains, target_length),
        pa.array(times),
    ]


def _events(part: SlidingWindows, digest: Digest) -> list[pa.Array]:
    """Columns of one batch: times of the histories, and ratings where the log has some."""
    length = part.hi - part.lo
    positions = ranges(part.lo, length)
    columns = [part.log.time[positions]]
    if part.log.rating is not None:
        columns.append(part.log.rating[positions].astype(np.float32))
    for values in columns:
        digest.array(values, measured=False)
    return [_lists(values, length) for values in columns]


def _lists(values: np.ndarray, length: np.ndarray) -> pa.Array:
    """A list column from flat values and the length of each list."""
    import pyarrow as pa

    offsets = np.concatenate([[0], np.cumsum(length)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
