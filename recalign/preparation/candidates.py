"""Candidate sets: a row's targets among negatives that its user never consumed, seeded."""

from __future__ import annotations

import numpy as np

from recalign.data.arrays import is_member
from recalign.errors import UserError
from recalign.preparation.sliding_windows import SlidingWindows


def candidate_sets(
    windows: SlidingWindows, consumed: np.ndarray, items: int, size: int, random: np.random.Generator
) -> np.ndarray:
    """Draw candidate sets.

    Args:
        windows: the rows.
        consumed: sorted distinct keys user * I + item of all interactions, held-out ones included.
        items: size of the catalogue, I.
        size: X, targets included.
        random: of the draw and of the shuffle.

    Returns:
        [W, X] int32 item indices in random order, all different; negatives are uniform over the items that
        appear nowhere in the user's interactions.

    Raises:
        UserError: a user has consumed too much of the catalogue.
    """
    log = windows.log
    most = int(np.bincount(consumed // items).max(initial=0))
    if items - most < size:
        raise UserError(
            f"A user has consumed {most} of the {items} items, too many for candidate sets of {size}.",
            "Lower --candidates, or leave them out.",
        )
    first = windows.distinct()
    fixed = np.full((len(windows), size), -1, dtype=np.int64)
    fixed[:, : windows.targets][first] = log.item[windows.target_positions][first]
    chosen = fixed.copy()
    users, open_rows = windows.user, np.arange(len(windows))
    while len(open_rows):
        block = chosen[open_rows]
        empty = block < 0
        block[empty] = random.integers(0, items, int(empty.sum()))
        wrong = is_member(users[open_rows][:, None] * items + block, consumed)
        for column in range(1, size):
            wrong[:, column] |= (block[:, :column] == block[:, column : column + 1]).any(axis=1)
        block[wrong & (fixed[open_rows] < 0)] = -1
        chosen[open_rows] = block
        open_rows = open_rows[(block < 0).any(axis=1)]
    return random.permuted(chosen, axis=1).astype(np.int32)
