"""The event log: all interactions as flat arrays, user by user in time order, without what rules leave out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from recalign.data.arrays import previous_same, renumber
from recalign.data.dataset import SPLITS
from recalign.errors import UserError
from recalign.preparation.forms import lookalikes, one_id
from recalign.preparation.interactions import Interactions, in_order
from recalign.preparation.items import CleanItems
from recalign.preparation.repeats import tied, without_repeats
from recalign.preparation.rules import Account, InteractionRule, rules_of
from recalign.preparation.times import describe, in_seconds, row_order

if TYPE_CHECKING:
    import polars as pl

    from recalign.preparation.prepare_options import PrepareOptions

ID_COLUMNS = ("user_id", "item_id")


@dataclass(frozen=True)
class EventLog:
    """E events in S sequences. A sequence is a user's life, or one ready-made window.

    A sequence is in time order; where the files say the split of each event, it holds the user's training events, then
    those of valid, then those of test, each of them in time order.

    Args:
        users: [U] user ids, sorted.
        owner: [S] user index of each sequence.
        start: [S+1] positions; sequence s is the events start[s]:start[s+1].
        item: [E] int32 item index.
        time: [E] float64.
        rating: [E] float64, NaN where there is none; None where the source has no ratings.
        gain: [E] float64 relevance.
        candidates: [S, X] int32, the candidate set that the source brings for each sequence's last event, or None.
        split: [E] int8, which split the files give each event to (0 train, 1 valid, 2 test); None: they do not say.
    """

    users: list[str]
    owner: np.ndarray
    start: np.ndarray
    item: np.ndarray
    time: np.ndarray
    rating: np.ndarray | None
    gain: np.ndarray
    candidates: np.ndarray | None = None
    split: np.ndarray | None = None

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
        """[E] whether an event has the time of another event in its sequence, of another item or rating."""
        if self.split is None:
            return tied(self.sequence, self.item, self.time, self.rating)
        order, found = np.lexsort((self.time, self.sequence)), np.empty(len(self), dtype=bool)
        rating = None if self.rating is None else self.rating[order]
        found[order] = tied(self.sequence[order], self.item[order], self.time[order], rating)
        return found


@dataclass(frozen=True)
class Kept:
    """What `read_events` keeps, before it becomes a log.

    Args:
        users: [U] user ids, sorted.
        rows: by user, split (where the files say it) and time; items are indices into `items`.
        items: [I] rows of the clean items that stay in the catalogue.
        unknown: how many events named no item of the catalogue and were left out.
        facts: what the report should say: `rules` (steps of `Account`), `row_order`, `times`, `times_mended`, those of
            `without_repeats`, `lookalike_user_ids`, `user_ids_joined`.
    """

    users: list[str]
    rows: Interactions
    items: np.ndarray
    unknown: int
    facts: dict[str, Any]


def read_events(
    events: pl.LazyFrame, items: CleanItems, options: PrepareOptions, seed: int = 0, *, partial: bool = False
) -> Kept:
    """Stream events into arrays, match them with the catalogue, sort them, leave out repeats and follow the rules.

    Args:
        events: as `RawData.events`.
        items: the catalogue.
        options: which ids are one, what orders ties, what is left out.
        seed: of a random order of ties.
        partial: the catalogue is known to have gaps, so that interactions of unknown items are left out.

    Raises:
        UserError: no events, unknown item ids, or nothing left after a rule.
    """
    users, rows, unknown, facts = _collect(events, items, options, partial or options.drop_invalid)
    account = Account()
    facts |= {"row_order": row_order(rows.user, rows.time), "times_mended": 0}
    if options.mend_times:
        seconds = in_seconds(rows.time)
        facts["times_mended"] = int(np.count_nonzero(seconds != rows.time))
        rows = replace(rows, time=seconds)
    account.note("read", unknown, rows)
    rows = in_order(rows, options.ties, seed)
    stays, repeats = without_repeats(rows.user, rows.item, rows.time, rows.rating, options.duplicates)
    if stays is not None:
        rows = account.apply([InteractionRule(f"--duplicates {options.duplicates}", lambda _: stays)], rows)
    rules = rules_of(options)
    rows = account.apply(rules, rows)
    facts |= {**repeats, "rules": account.steps, "times": describe(rows.time)}
    if rows.split is not None:
        rows = rows.take(np.lexsort((rows.split, rows.user)))
    kept = np.arange(items.frame.height)
    if rules:  # of the catalogue too: what no interaction names any more goes
        kept, item = renumber(rows.item)
        present, user = renumber(rows.user)
        users = [users[index] for index in present]
        rows = replace(rows, user=user.astype(np.int64), item=item.astype(np.int32))
    return Kept(users, rows, kept, unknown, facts)


def _collect(
    events: pl.LazyFrame, items: CleanItems, options: PrepareOptions, drop_unknown: bool
) -> tuple[list[str], Interactions, int, dict[str, Any]]:
    """User ids, interactions in the order of the file, how many were of unknown items, and facts of user ids."""
    import polars as pl

    columns = events.collect_schema()
    has_rating, has_split = "rating" in columns, options.split == "provided" and "split" in columns
    ids = {name: events.select(pl.col(name).unique()).collect(engine="streaming")[name] for name in ID_COLUMNS}
    told = ids["user_id"].cast(pl.String)
    standing = one_id(told, options.same_ids)
    users = standing.unique().sort()
    if not len(users):
        raise UserError("The source has no interactions.", "Check the path and the columns.")
    frame = events.select(
        user=_place(ids["user_id"], standing.cast(pl.Enum(users)).to_physical()),
        item=_place(ids["item_id"], items.place(ids["item_id"].cast(pl.String))),
        time="timestamp",
        **({"rating": pl.col("rating").fill_null(float("nan"))} if has_rating else {}),
        **({"split": pl.col("split").cast(pl.Enum(SPLITS)).to_physical().cast(pl.Int8)} if has_split else {}),
    ).collect(engine="streaming")
    unknown = frame["item"].null_count()
    if unknown:
        if not drop_unknown:
            raise _unknown(events, items, unknown, frame.height)
        if unknown == frame.height:
            raise UserError(
                f"None of the {unknown} interactions names an item of the catalogue.",
                "Check the columns of both item ids.",
            )
        frame = frame.drop_nulls("item")
    rows = Interactions(
        frame["user"].to_numpy().astype(np.int64),
        frame["item"].to_numpy().astype(np.int32),
        frame["time"].to_numpy(),
        frame["rating"].to_numpy() if has_rating else None,
        frame["split"].to_numpy() if has_split else None,
    )
    facts = {"lookalike_user_ids": lookalikes(users), "user_ids_joined": len(told) - len(users)}
    return users.to_list(), rows, unknown, facts


def _place(ids: pl.Series, place: pl.Series) -> pl.Expr:
    """Number of each cell of a column; null where its id has none.

    Args:
        ids: the different ids of the column, of its type and name; categories are compared by their numbers.
        place: the number of each of them.
    """
    import polars as pl

    cells, known = pl.col(ids.name), ids
    if ids.dtype == pl.Categorical:
        cells, known = cells.to_physical(), ids.to_physical()
    return cells.replace_strict(known, place, return_dtype=place.dtype)


def _unknown(events: pl.LazyFrame, items: CleanItems, unknown: int, total: int) -> UserError:
    """Name the first unknown item id and its row."""
    import polars as pl

    ids = events.select(pl.col("item_id").cast(pl.String).alias("id")).with_row_index("row", offset=1)
    strange = ids.select(pl.col("id").unique()).collect(engine="streaming")["id"]
    strange = strange.filter(items.place(strange).is_null())
    row, first = ids.filter(pl.col("id").is_in(strange.implode())).sort("row").head(1).collect().row(0)
    hint = "Complete the items, or pass --drop-invalid."
    alike = items.lookalike_of(first)
    if alike is not None:
        hint = (
            f"It looks like the item {ascii(alike)}: --same-ids blanks or case takes them for one. Or: {hint.lower()}"
        )
    return UserError(
        f"{unknown} of {total} interactions name items that the catalogue lacks, first in row {row}: item {first!r}.",
        hint,
    )


def to_log(kept: Kept, gain: np.ndarray) -> EventLog:
    """Lay events out as one sequence a user."""
    rows = kept.rows
    counts = np.bincount(rows.user, minlength=len(kept.users))
    start = np.concatenate([[0], np.cumsum(counts)])
    owner = np.arange(len(kept.users))
    return EventLog(kept.users, owner, start, rows.item, rows.time, rows.rating, gain, split=rows.split)
