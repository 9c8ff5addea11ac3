"""Ready-made windows as an event log of one sequence a window, and the training interactions that they tell of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from recalign.data.dataset import SPLITS
from recalign.errors import UserError
from recalign.preparation.events import EventLog
from recalign.preparation.forms import ID_KEYS, lookalikes, one_id
from recalign.preparation.items import CleanItems
from recalign.preparation.times import describe

if TYPE_CHECKING:
    import polars as pl


def read_windows(
    windows: Mapping[str, pl.LazyFrame], items: CleanItems, drop_invalid: bool, *, ranks: bool = False
) -> tuple[EventLog, np.ndarray, dict[str, Any]]:
    """Turn ready-made windows into a log.

    Args:
        windows: as `RawData.windows`.
        items: the catalogue.
        drop_invalid: leave out windows that name unknown items.
        ranks: whether rows have candidates, which are then those of the source where it brings some.

    Returns:
        The log, the split of each sequence [S] (0 train, 1 valid, 2 test), and the facts: `windows_read`,
        `duplicate_windows` (those with the user, items and time of an earlier one of their split), `dropped_events`
        (windows of unknown items, left out), `times` (see `describe`), `lookalike_user_ids` and `user_ids_joined`; of a
        source with candidate sets `windows_without_candidates` (left out) or, where none are asked for,
        `candidate_sets_left_out`.

    Raises:
        UserError: no windows, or unknown item ids; candidate sets that are not sets or of several sizes.
    """
    import polars as pl

    key = ID_KEYS[items.same_ids]
    known = pl.Enum(items.aliases.select(key(pl.col("raw")))["raw"])
    ids = pl.col("item_ids") if items.same_ids == "exact" else pl.col("item_ids").list.eval(key(pl.element()))
    parts = [
        windows[name]
        .with_row_index("row")
        .with_columns(item=ids.cast(pl.List(known), strict=False), split=pl.lit(code, dtype=pl.Int8))
        .collect(engine="streaming")
        for code, name in enumerate(SPLITS)
        if name in windows
    ]
    frame, dropped = _of_known_items(pl.concat(parts), drop_invalid)
    frame, facts = _with_candidates(frame, ranks)
    raw = frame["user_id"].unique()
    standing = one_id(raw, items.same_ids)
    frame = frame.with_columns(pl.col("user_id").replace_strict(raw, standing))
    users = standing.unique().sort()
    length = frame["item"].list.len().to_numpy().astype(np.int64)
    code = frame["item"].explode().to_physical().to_numpy()
    log = EventLog(
        users=users.to_list(),
        owner=frame["user_id"].cast(pl.Enum(users)).to_physical().to_numpy().astype(np.int64),
        start=np.concatenate([[0], np.cumsum(length)]),
        item=items.aliases["item"].to_numpy()[code].astype(np.int32),
        time=np.repeat(frame["timestamp"].to_numpy(), length),
        rating=None,
        gain=np.ones(len(code)),
        candidates=_candidate_sets(frame, items) if "candidates" in frame.columns else None,
    )
    distinct = frame.select("user_id", "timestamp", "split", items=pl.col("item").hash()).n_unique()
    facts |= {
        "windows_read": frame.height,
        "duplicate_windows": frame.height - distinct,
        "dropped_events": dropped,
        "times": describe(frame["timestamp"].to_numpy()),
        "lookalike_user_ids": lookalikes(users),
        "user_ids_joined": len(raw) - len(users),
    }
    return log, frame["split"].to_numpy(), facts


def _of_known_items(frame: pl.DataFrame, drop_invalid: bool) -> tuple[pl.DataFrame, int]:
    """Leave out the windows of items that the catalogue lacks; returns the others, and how many those are.

    Raises:
        UserError: there are some, which are not to be left out, or there is no other window.
    """
    import polars as pl

    bad = frame.filter(pl.col("item").list.eval(pl.element().is_null().any()).list.first())
    if bad.height and not drop_invalid:
        first = bad.row(0, named=True)
        unknown = next(i for i, code in zip(first["item_ids"], first["item"], strict=True) if code is None)
        raise UserError(
            f"{bad.height} of {frame.height} windows name items that the catalogue lacks, first in row "
            f"{first['row'] + 1} of {SPLITS[first['split']]}: item {unknown!r}.",
            "Complete the items, or pass --drop-invalid.",
        )
    clean = pl.col("item").list.eval(pl.element().is_not_null().all()).list.first()
    kept = frame.filter(clean & (pl.col("item_ids").list.len() > 0))
    if not kept.height:
        raise UserError("The source has no windows.", "Check the files and columns.")
    return kept, bad.height


def _with_candidates(frame: pl.DataFrame, ranks: bool) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Leave out the candidate sets that nothing asks for or, where rows rank them, the windows without one.

    Raises:
        UserError: no window has a set.
    """
    if "candidates" not in frame.columns:
        return frame, {}
    whole = frame.drop_nulls("candidates")
    if not ranks:
        return frame.drop("candidates"), {"candidate_sets_left_out": whole.height}
    if not whole.height:
        raise UserError(
            f"None of the {frame.height} windows has a candidate set of items of the catalogue with its target once.",
            "Leave the sets out (-p candidates=false where the source reads them unasked), and negatives are drawn.",
        )
    return whole, {"windows_without_candidates": frame.height - whole.height}


def _candidate_sets(frame: pl.DataFrame, items: CleanItems) -> np.ndarray:
    """Return the candidate set of each window: int32 [S, X].

    Raises:
        UserError: a set that names an unknown item or one twice, lacks the window's last item or has it twice, or has
            another size than the first.
    """
    import polars as pl

    index = dict(items.aliases.select("raw", "item").iter_rows())
    sets: list[list[int]] = []
    columns = ("row", "split", "user_id", "item_ids", "candidates")
    for row, split, user, named, candidates in frame.select(pl.col(*columns)).iter_rows():
        where = f"Row {row + 1} of {SPLITS[split]} (user {user!r})"
        ids, target = list(candidates or ()), named[-1]
        unknown = next((each for each in ids if each not in index), None)
        if unknown is not None:
            raise UserError(f"{where} has the candidate {unknown!r}, which the catalogue lacks.", "Complete the items.")
        found = [index[each] for each in ids]
        if found.count(index[target]) != 1:
            how = "twice or more" if found.count(index[target]) else "not at all"
            raise UserError(
                f"{where} has its target {target!r} {how} among its candidates.", "A row ranks its target once."
            )
        if len(set(found)) < len(found):
            twice = next(each for each in ids if found.count(index[each]) > 1)
            raise UserError(f"{where} has the candidate {twice!r} twice.", "Name every candidate once.")
        if sets and len(found) != len(sets[0]):
            raise UserError(
                f"{where} has {len(found)} candidates, the first row {len(sets[0])}.",
                "Give all rows candidate sets of one size.",
            )
        sets.append(found)
    return np.array(sets, dtype=np.int32)


def once(log: EventLog, training: np.ndarray) -> np.ndarray:
    """Positions of the training interactions, each (user, item) once: overlapping windows tell of the same event again.

    The earliest window that names an item tells when; the order is by user, time and place in the window.

    Args:
        log: one sequence a window.
        training: [E] bool.
    """
    position = np.flatnonzero(training)
    position = position[np.lexsort((position, log.time[position], log.user[position]))]
    key = log.user[position] * (int(log.item.max()) + 1) + log.item[position]
    _, first = np.unique(key, return_index=True)
    return position[np.sort(first)]
