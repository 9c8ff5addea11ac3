"""A dataset without cold items: what no training interaction names leaves the catalogue, the histories and the rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recalign.data.arrays import renumber
from recalign.preparation.events import EventLog
from recalign.preparation.sliding_windows import SlidingWindows
from recalign.preparation.splits import Splits


def without_cold(
    log: EventLog, splits: Splits, training: np.ndarray, min_history: int
) -> tuple[EventLog, Splits, np.ndarray, np.ndarray]:
    """Leave out the items that no training interaction names, their events, and the rows that have one as a target.

    Such items are in a catalogue only because someone consumes them later, so that being unseen tells of being a
    target. A row whose history falls short of `min_history` without them goes too.

    Args:
        log: E events.
        splits: windows over them.
        training: [N] positions of the training interactions.
        min_history: items of a history at least.

    Returns:
        The log of the events that stay, the windows over it (with the facts `cold_items_left_out` and
        `cold_rows_left_out`), the training positions in it, and the items that stay [I], as indices of the old ones.
    """
    seen = np.zeros(int(log.item.max()) + 1, dtype=bool)
    seen[log.item[training]] = True
    stays = seen[log.item]
    place = np.concatenate([[0], np.cumsum(stays)])
    kept, item = renumber(log.item[stays])
    warm_log = replace(
        log,
        start=place[log.start],
        item=item.astype(np.int32),
        time=log.time[stays],
        rating=None if log.rating is None else log.rating[stays],
        gain=log.gain[stays],
        split=None if log.split is None else log.split[stays],
    )
    windows, left_out = {}, {}
    for name, part in splits.windows.items():
        whole = stays[part.target_positions].all(axis=1) & (place[part.hi] - place[part.lo] >= min_history)
        lo, hi, cut = (place[each[whole]] for each in (part.lo, part.hi, part.cut))
        windows[name] = SlidingWindows(warm_log, lo, hi, cut, part.targets)
        left_out[name] = int((~whole).sum())
    users = {name: len(np.unique(part.user)) for name, part in windows.items()}
    facts = {
        **splits.facts,
        "users_per_split": users,
        "cold_items_left_out": int(len(seen) - len(kept)),
        "cold_rows_left_out": left_out,
    }
    warm = replace(splits, windows=windows, training=splits.training[stays], facts=facts)
    return warm_log, warm, place[training], kept
