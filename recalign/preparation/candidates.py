"""Candidate sets: a row's targets among negatives that its user never consumed, seeded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from recalign.data.arrays import is_member
from recalign.errors import UserError
from recalign.preparation.sliding_windows import SlidingWindows


@dataclass(frozen=True)
class NegativeItems:
    """Which items negatives are drawn from, and how.

    Args:
        how: `uniform`, `popularity` (in proportion to training interactions), or `category` (those that share a genre
            with the first target; where the user has left fewer of them, the rest is drawn uniformly).
        popularity: [I] training interactions of each item.
        genres: [I, C] bool, the genres of each item.
    """

    how: Literal["uniform", "popularity", "category"]
    popularity: np.ndarray
    genres: np.ndarray

    def draw(self, count: int, random: np.random.Generator) -> np.ndarray:
        """Return that many items, with repeats: int64."""
        if self.how == "popularity":
            share = self.popularity.cumsum()
            return np.searchsorted(share, random.integers(0, share[-1], count), side="right")
        return random.integers(0, len(self.popularity), count)

    @property
    def drawable(self) -> np.ndarray:
        """[I] bool, items that are drawn at all."""
        return self.popularity > 0 if self.how == "popularity" else np.ones(len(self.popularity), dtype=bool)

    def alike(self, target: int) -> np.ndarray:
        """Return the other items of a target's category: int64."""
        found = (self.genres & self.genres[target]).any(axis=1)
        found[target] = False
        return np.flatnonzero(found)


def genre_matrix(genres: Sequence[Sequence[str] | None]) -> np.ndarray:
    """Return which of the C genres each item has: bool [I, C]."""
    names = {name: place for place, name in enumerate(sorted({name for each in genres for name in each or ()}))}
    matrix = np.zeros((len(genres), len(names)), dtype=bool)
    for item, each in enumerate(genres):
        matrix[item, [names[name] for name in each or ()]] = True
    return matrix


def candidate_sets(
    windows: SlidingWindows,
    consumed: np.ndarray,
    items: int,
    size: int,
    random: np.random.Generator,
    negatives: NegativeItems | None = None,
) -> np.ndarray:
    """Draw candidate sets.

    Args:
        windows: the rows.
        consumed: sorted distinct keys user * I + item of all interactions, held-out ones included.
        items: size of the catalogue, I.
        size: X, targets included.
        random: of the draw and of the shuffle.
        negatives: where they come from; None: uniform over the catalogue.

    Returns:
        [W, X] int32 item indices in random order, all different; negatives appear nowhere in the user's interactions.

    Raises:
        UserError: a user has consumed too much of the catalogue.
    """
    log = windows.log
    negatives = negatives or NegativeItems("uniform", np.zeros(items, dtype=np.int64), np.zeros((items, 0), dtype=bool))
    _check_room(consumed, items, size, negatives.drawable)
    first = windows.distinct()
    fixed = np.full((len(windows), size), -1, dtype=np.int64)
    fixed[:, : windows.targets][first] = log.item[windows.target_positions][first]
    chosen = fixed.copy()
    _fill_from_category(chosen, windows, consumed, items, negatives, random)
    fixed = chosen.copy()
    users, open_rows = windows.user, np.arange(len(windows))
    while len(open_rows):
        block = chosen[open_rows]
        empty = block < 0
        block[empty] = negatives.draw(int(empty.sum()), random)
        wrong = is_member(users[open_rows][:, None] * items + block, consumed)
        for column in range(1, size):
            wrong[:, column] |= (block[:, :column] == block[:, column : column + 1]).any(axis=1)
        block[wrong & (fixed[open_rows] < 0)] = -1
        chosen[open_rows] = block
        open_rows = open_rows[(block < 0).any(axis=1)]
    return random.permuted(chosen, axis=1).astype(np.int32)


def provided_sets(windows: SlidingWindows, size: int, random: np.random.Generator) -> np.ndarray:
    """Return the candidate sets that the source brings, each in random order: [W, X] int32.

    Args:
        windows: the rows.
        size: X, as it was asked for.
        random: of the order, so that the place of the target tells nothing.

    Raises:
        UserError: they have another size, or the rows have several targets.
    """
    sets = windows.log.candidates
    assert sets is not None, "the source brings none"
    if windows.targets != 1:
        raise UserError(
            f"The source's candidate sets have one target each, and --targets is {windows.targets}.",
            "Prepare them with --task rank.",
        )
    if sets.shape[1] != size:
        raise UserError(
            f"The source's candidate sets have {sets.shape[1]} items, and --candidates is {size}.",
            f"Pass --task rank --candidates {sets.shape[1]}.",
        )
    return random.permuted(sets[windows.log.sequence[windows.cut]], axis=1)


def _check_room(consumed: np.ndarray, items: int, size: int, drawable: np.ndarray) -> None:
    """Refuse sets that some user leaves too few items for."""
    had = np.bincount((consumed // items)[drawable[consumed % items]]).max(initial=0)
    left = int(drawable.sum()) - int(had)
    if left < size:
        kind = "" if drawable.all() else " that training interactions name"
        raise UserError(
            f"A user has consumed {int(had)} of the {int(drawable.sum())} items{kind}, too many for candidate sets of "
            f"{size}.",
            "Lower --candidates, or leave them out.",
        )


def _fill_from_category(
    chosen: np.ndarray,
    windows: SlidingWindows,
    consumed: np.ndarray,
    items: int,
    negatives: NegativeItems,
    random: np.random.Generator,
) -> None:
    """Put items of the first target's category into the empty places (-1) of the sets, as far as there are any."""
    if negatives.how != "category":
        return
    first = windows.log.item[windows.cut]
    for target in np.unique(first):
        alike = negatives.alike(int(target))
        for row in np.flatnonzero(first == target):
            free = alike[~is_member(windows.user[row] * items + alike, consumed)]
            empty = np.flatnonzero(chosen[row] < 0)
            drawn = random.permutation(free)[: len(empty)]
            chosen[row, empty[: len(drawn)]] = drawn
