"""The event log: all interactions as flat arrays, user by user in time order, after k-core and popularity cut."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from recalign.data.arrays import previous_same, renumber
from recalign.errors import UserError
from recalign.preparation.forms import lookalikes
from recalign.preparation.items import CleanItems
from recalign.preparation.repeats import Duplicates, tied, without_repeats

if TYPE_CHECKING:
    import polars as pl

ID_COLUMNS = ("user_id", "item_id")


@dataclass(frozen=True)
class EventLog:
    """E events in S sequences, each in time order. A sequence is a user's life, or one ready-made window.

    Args:
        users: [U] user ids, sorted.
        owner: [S] user index of each sequence.
        start: [S+1] positions; sequence s is the events start[s]:start[s+1].
        item: [E] int32 item index.
        time: [E] float64.
        rating: [E] float64, NaN where there is none; None where the source has no ratings.
        gain: [E] float64 relevance.
        candidates: [S, X] int32, the candidate set that the source brings for each sequence's last event, or None.
    """

    users: list[str]
    owner: np.ndarray
    start: np.ndarray
    item: np.ndarray
    time: np.ndarray
    rating: np.ndarray | None
    gain: np.ndarray
    candidates: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.item)

    @cached_property
    def sequence(self) -> np.ndarray:
        """[E] sequence of each event."""
        return np.repeat(np.arange(len(self.owner)), np.diff(self.start))

    @cached_property
    def user(self) -> np.ndarray:
        """[E] user index of each event."""
        return self.owner[self.sequence]

    @cached_property
    def previous(self) -> np.ndarray:
        """[E] position of the event before with the same item in the same sequence, or -1."""
        return previous_same(self.sequence, self.item)

    @cached_property
    def tied(self) -> np.ndarray:
        """[E] whether an event has the time of another item's event in its sequence."""
        return tied(self.sequence, self.item, self.time)


@dataclass(frozen=True)
class Filtered:
    """What `read_events` keeps, before it becomes a log: flat arrays by user and time, and the items that stay.

    Args:
        users: [U] user ids, sorted.
        user: [E] user index.
        item: [E] item index into `kept`.
        time: [E].
        rating: [E] or None.
        kept: [I] rows of the clean items that stay in the catalogue.
        unknown: how many events named no item of the catalogue and were left out.
        facts: what the report should say: those of `without_repeats`, and `lookalike_user_ids`.
    """

    users: list[str]
    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    rating: np.ndarray | None
    kept: np.ndarray
    unknown: int
    facts: dict[str, Any]


def read_events(
    events: pl.LazyFrame,
    items: CleanItems,
    *,
    drop_invalid: bool,
    popularity_cut: float | None,
    k_core: int,
    duplicates: Duplicates = "keep",
) -> Filtered:
    """Stream events into arrays, match them with the catalogue, sort by user and time, leave out repeats, filter.

    Events of one user and time keep the order of the file.

    Raises:
        UserError: no events, unknown item ids, or nothing left after the filters.
    """
    users, user, item, time, rating, unknown = _collect(events, items, drop_invalid)
    order = np.lexsort((time, user))
    user, item, time = user[order].astype(np.int64), item[order].astype(np.int32), time[order]
    rating = None if rating is None else rating[order]
    stays, facts = without_repeats(user, item, time, rating, duplicates)
    if stays is not None:
        user, item, time = user[stays], item[stays], time[stays]
        rating = None if rating is None else rating[stays]
    facts["lookalike_user_ids"] = lookalikes(users)
    log = Filtered(users.to_list(), user, item, time, rating, np.arange(items.frame.height), unknown, facts)
    return _filtered(log, popularity_cut, k_core)


def _filtered(log: Filtered, popularity_cut: float | None, k_core: int) -> Filtered:
    """Leave out unpopular items, then users and items with too few events; `log` has all items.

    Raises:
        UserError: nothing is left.
    """
    user, item = log.user, log.item
    alive = popular(item, len(log.kept), popularity_cut)
    alive = core(user, item, alive, k_core)
    if not alive.any():
        cut = "" if popularity_cut is None else f"--popularity-cut {popularity_cut} and "
        raise UserError(
            f"No interaction is left of {len(item)} after {cut}--k-core {k_core}.",
            "Lower --k-core or keep more items.",
        )
    if alive.all() and popularity_cut is None and k_core <= 1:
        return log
    kept, item = renumber(item[alive])
    present, user = renumber(user[alive])
    return replace(
        log,
        users=[log.users[index] for index in present],
        user=user.astype(np.int64),
        item=item.astype(np.int32),
        time=log.time[alive],
        rating=None if log.rating is None else log.rating[alive],
        kept=kept,
    )


def _collect(events: pl.LazyFrame, items: CleanItems, drop_invalid: bool) -> tuple:  # type: ignore[type-arg]
    """Users, and per event user index, item row, time, rating (or None), and how many events had unknown items."""
    import polars as pl

    has_rating = "rating" in events.collect_schema()
    ids = {name: events.select(pl.col(name).unique()).collect(engine="streaming")[name] for name in ID_COLUMNS}
    users = ids["user_id"].cast(pl.String).sort()
    if not len(users):
        raise UserError("The source has no interactions.", "Check the path and the columns.")
    frame = events.select(
        user=_place(ids["user_id"], pl.Enum(users)),
        item=_place(ids["item_id"], pl.Enum(items.aliases["raw"])),
        time="timestamp",
        **({"rating": pl.col("rating").fill_null(float("nan"))} if has_rating else {}),
    ).collect(engine="streaming")
    unknown = frame["item"].null_count()
    if unknown:
        if not drop_invalid:
            raise UserError(
                _describe_unknown(events, items, unknown, frame.height), "Complete the items, or pass --drop-invalid."
            )
        if unknown == frame.height:
            raise UserError(
                f"None of the {unknown} interactions names an item of the catalogue.",
                "Check the columns of both item ids.",
            )
        frame = frame.drop_nulls("item")
    row = items.aliases["item"].to_numpy()[frame["item"].to_numpy()]
    rating = frame["rating"].to_numpy() if has_rating else None
    return users, frame["user"].to_numpy(), row, frame["time"].to_numpy(), rating, unknown


def _place(ids: pl.Series, known: pl.Enum) -> pl.Expr:
    """Place of a column's ids among the known ones, null where an id is none of them.

    Args:
        ids: the different ids of the column, of its type and name; categories are compared by their numbers.
        known: ids in order.
    """
    import polars as pl

    if ids.dtype != pl.Categorical:
        return pl.col(ids.name).cast(known, strict=False).to_physical()
    place = ids.cast(pl.String).cast(known, strict=False).to_physical()
    return pl.col(ids.name).to_physical().replace_strict(ids.to_physical(), place, return_dtype=place.dtype)


def _describe_unknown(events: pl.LazyFrame, items: CleanItems, unknown: int, total: int) -> str:
    """Name the first unknown item id and its row."""
    import polars as pl

    first = (
        events.select(pl.col("item_id").cast(pl.String))
        .with_row_index("row")
        .join(items.aliases.lazy(), left_on="item_id", right_on="raw", how="anti")
        .sort("row")
        .head(1)
        .collect(engine="streaming")
    )
    return (
        f"{unknown} of {total} interactions name items that the catalogue lacks, first in row {first['row'][0] + 1}: "
        f"item {first['item_id'][0]!r}."
    )


def popular(item: np.ndarray, items: int, percent: float | None) -> np.ndarray:
    """[E] whether an event's item is among the top percent by interactions (ties: the earlier item)."""
    if percent is None:
        return np.ones(len(item), dtype=bool)
    counts = np.bincount(item, minlength=items)
    keep = max(1, int(np.ceil(np.count_nonzero(counts) * percent / 100)))
    best = np.zeros(items, dtype=bool)
    best[np.argsort(-counts, kind="stable")[:keep]] = True
    return best[item]


def core(user: np.ndarray, item: np.ndarray, alive: np.ndarray, k: int) -> np.ndarray:
    """[E] what is left when users and items with fewer than k events are removed until none is left to remove."""
    while k > 1:
        enough_user = np.bincount(user[alive], minlength=int(user.max(initial=0)) + 1) >= k
        enough_item = np.bincount(item[alive], minlength=int(item.max(initial=0)) + 1) >= k
        smaller = alive & enough_user[user] & enough_item[item]
        if smaller.sum() == alive.sum():
            break
        alive = smaller
    return alive


def to_log(events: Filtered, gain: np.ndarray) -> EventLog:
    """Lay events out as one sequence a user."""
    counts = np.bincount(events.user, minlength=len(events.users))
    start = np.concatenate([[0], np.cumsum(counts)])
    owner = np.arange(len(events.users))
    return EventLog(events.users, owner, start, events.item, events.time, events.rating, gain)
