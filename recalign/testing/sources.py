"""The trial of sources: the embedded interactions, written as the source's own files, come back all of them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from recalign.api import RawData, Source
from recalign.testing.example import example_interactions, example_items

if TYPE_CHECKING:
    import polars as pl

EVENT = ("user_id", "item_id", "timestamp")
ITEM = ("item_id", "title")


def problems(source: Source) -> Iterator[str]:
    """Read what the source wrote, or what it makes up; yield one line per problem."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = source.write_example(folder, example_interactions(), example_items())
        if path is None and source.needs_path:
            return  # only its declarations can be looked at
        if path is not None:
            missing = [str(file) for file in source.files(path) if not file.exists()]
            if missing:
                yield f"files names {missing[0]}, which write_example did not write"
                return
            if not source.general and not type(source).recognises(path):
                yield "recognises does not know the path that write_example returns"
        raw = source.read(path, 0)
        found = list(_frame_problems(raw)) or list(_repeat_problems(source, path, raw))
        yield from found
        if path is not None and not found:
            yield from _round_trip_problems(raw)


def _frame_problems(raw: RawData) -> Iterator[str]:
    """Look at columns, missing values, repeated items and events of unknown ones."""
    frames = {"items": (raw.items, ITEM)} | ({} if raw.events is None else {"events": (raw.events, EVENT)})
    for name, (frame, columns) in frames.items():
        missing = [column for column in columns if column not in frame.collect_schema()]
        if missing:
            yield f"read returns {name} without the column {missing[0]}"
            return
    for name, (frame, columns) in frames.items():
        rows = frame.select(columns).collect()
        empty = [column for column in columns if rows[column].null_count()]
        if not rows.height:
            yield f"read returns no {name}"
        if empty and not raw.partial:
            yield f"read returns {name} without {empty[0]}, and the records stand in no account"
    if raw.events is None:
        if not raw.windows:
            yield "read returns neither events nor windows"
        return
    items, events = _text(raw.items, ("item_id",)), _text(raw.events, ("item_id",))
    if not raw.items_per_event and items["item_id"].is_duplicated().any():
        yield f"read returns the item {items.filter(items.is_duplicated())['item_id'][0]} twice"
    unknown = set(events["item_id"].drop_nulls()) - set(items["item_id"].drop_nulls())
    if unknown and not raw.partial:
        yield f"read returns {len(unknown)} items of events, such as {min(unknown)}, that its items lack"


def _repeat_problems(source: Source, path: Path | None, raw: RawData) -> Iterator[str]:
    again = source.read(path, 0)
    if raw.events is not None and again.events is not None:
        if not _text(raw.events, EVENT).equals(_text(again.events, EVENT)):
            yield "read returns other events the second time, with the same path and seed"


def _round_trip_problems(raw: RawData) -> Iterator[str]:
    """Hold what was read against what was written: no interaction is lost, added or changed."""
    import polars as pl

    if raw.events is None:
        return
    wanted = _text(example_interactions().lazy(), EVENT)
    events = _text(raw.events, EVENT)
    lost, added = wanted.join(events, on=EVENT, how="anti"), events.join(wanted, on=EVENT, how="anti")
    if lost.height or events.height != wanted.height:
        example = f"; the first lost one: {dict(zip(EVENT, lost.row(0), strict=True))}" if lost.height else ""
        changed = f"; {added.height} were not among them" if added.height else ""
        yield f"read returns {events.height} of the {wanted.height} interactions that were written{changed}{example}"
    schema = raw.events.collect_schema()
    if "rating" in schema and not lost.height and events.height == wanted.height:
        total = raw.events.select(pl.col("rating").cast(pl.Float64).sum()).collect().item()
        if abs(total - example_interactions()["rating"].sum()) > 0.5:
            yield f"read changes the ratings: their sum is {total:g}, not {example_interactions()['rating'].sum():g}"
    refused = sum(sum(each.count for each in account.refused.values()) for account in raw.accounts)
    if refused:
        yield f"read refuses {refused} records of the files that write_example wrote"


def _text(frame: pl.LazyFrame, columns: tuple[str, ...]) -> pl.DataFrame:
    """Ids as text, times as whole seconds."""
    import polars as pl

    cast = {"timestamp": pl.Float64}
    return frame.select(pl.col(name).cast(cast.get(name, pl.String)) for name in columns).collect()
