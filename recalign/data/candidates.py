"""Candidate sets: a row's targets among negatives that its user never consumed, seeded."""

from __future__ import annotations

import numpy as np

from recalign.data.windows import Windows
from recalign.errors import UserError


def candidate_sets(windows: Windows, items: int, size: int, seed: int) -> np.ndarray:
    """Draw candidate sets.

    Args:
        windows: the rows.
        items: size of the catalogue, I.
        size: X, targets included.
        seed: of the draw and of the shuffle.

    Returns:
        [W, X] int32 item indices in random order, all different; negatives are uniform over the items that appear nowhere in
        the user's interactions.

    Raises:
        UserError: a user has consumed too much of the catalogue.
    """
    log, random = windows.log, np.random.default_rng([seed, 20])
    consumed = np.unique(log.user * items + log.item)  # [pairs]
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
    open_rows = np.arange(len(windows))
    while len(open_rows):
        block = chosen[open_rows]
        empty = block < 0
        block[empty] = random.integers(0, items, int(empty.sum()))
        key = (windows.user[open_rows][:, None] * items + block).ravel()
        place = np.minimum(np.searchsorted(consumed, key), len(consumed) - 1)
        wrong = (consumed[place] == key).reshape(block.shape)
        for column in range(1, size):
            wrong[:, column] |= (block[:, :column] == block[:, column : column + 1]).any(axis=1)
        block[wrong & (fixed[open_rows] < 0)] = -1
        chosen[open_rows] = block
        open_rows = open_rows[(block < 0).any(axis=1)]
    return random.permuted(chosen, axis=1).astype(np.int32)
