"""Interactions as flat arrays, and the orders that those of one user and time can have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Ties = Literal["file", "reversed", "item", "random"]


@dataclass(frozen=True)
class Interactions:
    """E interactions.

    Args:
        user: [E] user index.
        item: [E] item index.
        time: [E] float64.
        rating: [E] float64, NaN where there is none; None where the source has no ratings.
        split: [E] int8, which split the source's files give each to (0 train, 1 valid, 2 test); None: they do not say.
    """

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    rating: np.ndarray | None
    split: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.item)

    def take(self, index: np.ndarray) -> Interactions:
        """Some of the interactions, by index or mask."""
        rating, split = (None if each is None else each[index] for each in (self.rating, self.split))
        return Interactions(self.user[index], self.item[index], self.time[index], rating, split)


def _as_in_file(rows: Interactions, seed: int) -> np.ndarray:
    """Rows of one user and time stay in their order."""
    return np.lexsort((rows.time, rows.user))


def _reversed(rows: Interactions, seed: int) -> np.ndarray:
    """Rows of one user and time are turned round: in a file that is newest first, the last one happened first."""
    return len(rows) - 1 - np.lexsort((rows.time[::-1], rows.user[::-1]))


def _by_item(rows: Interactions, seed: int) -> np.ndarray:
    """Rows of one user and time stand in the order of their items, those of one item in the order of their ratings."""
    ratings = () if rows.rating is None else (rows.rating,)
    return _within_ties(rows, _as_in_file(rows, seed), *ratings, rows.item)


def _at_random(rows: Interactions, seed: int) -> np.ndarray:
    """Rows of one user and time are shuffled, from the same order wherever they stood in the file."""
    order = _by_item(rows, seed)
    key = np.empty(len(rows))
    key[order] = np.random.default_rng([seed, 30]).random(len(rows))
    return _within_ties(rows, order, key)


def _within_ties(rows: Interactions, order: np.ndarray, *keys: np.ndarray) -> np.ndarray:
    """Sort those of one user and time by keys, the last one first.

    Args:
        rows: in any order.
        order: [E] of rows, by user and time.
        keys: [E] each, of the rows.
    """
    user, time = rows.user[order], rows.time[order]
    same = (user[1:] == user[:-1]) & (time[1:] == time[:-1])
    place = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False))
    tied = order[place]
    order[place] = tied[np.lexsort((*(key[tied] for key in keys), time[place], user[place]))]
    return order


@dataclass(frozen=True)
class TieOrder:
    """What orders interactions of one user and time.

    Args:
        places: gives [E] the order of rows, by user and time.
        name: what it is called in a sentence.
        of_rows: it depends on the order of the rows in the file.
        newest_first: it takes the file to be newest first.
    """

    places: Callable[[Interactions, int], np.ndarray]
    name: str
    of_rows: bool = False
    newest_first: bool = False


ORDERS: dict[Ties, TieOrder] = {
    "file": TieOrder(_as_in_file, "the order of the rows in the file", of_rows=True),
    "reversed": TieOrder(_reversed, "the order of the rows in the file", of_rows=True, newest_first=True),
    "item": TieOrder(_by_item, "the order of the items"),
    "random": TieOrder(_at_random, "the seed"),
}


def in_order(rows: Interactions, ties: Ties, seed: int) -> Interactions:
    """Sort by user and time.

    Args:
        rows: in the order of the file.
        ties: what orders the interactions of one user and time.
        seed: of `random`.
    """
    return rows.take(ORDERS[ties].places(rows, seed))
