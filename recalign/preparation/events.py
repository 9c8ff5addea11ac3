"""The event log: all interactions as flat arrays, user by user in time order, after k-core and popularity cut."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from recalign.data.arrays import renumber
from recalign.errors import UserError
from recalign.preparation.items import CleanItems

if TYPE_CHECKING:
    import polars as pl


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
    """

    users: list[str]
    owner: np.ndarray
    start: np.ndarray
    item: np.ndarray
    time: np.ndarray
    rating: np.ndarray | None
    gain: np.ndarray

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
        previous = np.full(len(self), -1)
        key = self.sequence * (int(self.item.max(initial=0)) + 1) + self.item
        order = np.argsort(key, kind="stable")
        same = np.flatnonzero(key[order][1:] == key[order][:-1])
        previous[order[same + 1]] = order[same]
        return previous


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
    """

    users: list[str]
    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    rating: np.ndarray | None
    kept: np.ndarray
    unknown: int


def read_events(
    events: pl.LazyFrame, items: CleanItems, *, drop_invalid: bool, popularity_cut: float | None, k_core: int
) -> Filtered:
    """Stream events into arrays, match them with the catalogue, filter, and sort by user and time (ties: file order).

    Raises:
        UserError: no events, unknown item ids, or nothing left after the filters.
    """
    users, user, item, time, rating, unknown = _collect(events, items, drop_invalid)
    alive = popular(item, items.frame.height, popularity_cut)
    alive = core(user, item, alive, k_core)
    if not alive.any():
        cut = "" if popularity_cut is None else f"--popularity-cut {popularity_cut} and "
        raise UserError(
            f"No interaction is left of {len(item)} after {cut}--k-core {k_core}.",
            "Lower --k-core or keep more items.",
        )
    kept = np.arange(items.frame.height)
    if not alive.all() or popularity_cut is not None or k_core > 1:
        user, item, time = user[alive], item[alive], time[alive]
        rating = None if rating is None else rating[alive]
        kept, item = renumber(item)
        present, user = renumber(user)
        users = [users[index] for index in present]
    order = np.lexsort((time, user))
    return Filtered(
        users,
        user[order].astype(np.int64),
        item[order].astype(np.int32),
        time[order],
        None if rating is None else rating[order],
        kept,
        unknown,
    )


def _collect(events: pl.LazyFrame, items: CleanItems, drop_invalid: bool) -> tuple:  # type: ignore[type-arg]
    """Users, and per event user index, item row, time, rating (or None), and how many events had unknown items."""
    import polars as pl

    has_rating = "rating" in events.collect_schema()
    users = events.select(pl.col("user_id").unique().sort()).collect(engine="streaming")["user_id"]
    if not len(users):
        raise UserError("The source has no interactions.", "Check the path and the columns.")
    known = pl.Enum(items.aliases["raw"])
    frame = events.select(
        user=pl.col("user_id").cast(pl.Enum(users)).to_physical(),
        item=pl.col("item_id").cast(known, strict=False).to_physical(),
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
    return users.to_list(), frame["user"].to_numpy(), row, frame["time"].to_numpy(), rating, unknown


def _describe_unknown(events: pl.LazyFrame, items: CleanItems, unknown: int, total: int) -> str:
    """Name the first unknown item id and its row."""
    first = (
        events.select("item_id")
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
