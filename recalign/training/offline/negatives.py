"""Where rejected titles come from: any item, popular items, the batch's other targets, the policy, or a list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from recalign.api import INVALID, Row
from recalign.errors import UserError
from recalign.training.availability import fewest_available

if TYPE_CHECKING:
    from recalign.decoding.engine import PolicyEngine

Draw = Callable[["Negatives", Sequence[Row], int], list[np.ndarray]]


class Negatives:
    """Draws D rejected items for each row: never a target, never what the policy must not recommend, none twice.

    Args:
        engine: catalogue, exclusions and, for `self`, the policy.
        source: `uniform`, `popularity`, `batch`, `self` or `greedy`.
        count: D.
        seed: with the epoch and the row's index it decides the draw.
        batch_size: rows that are drawn for together, as far as that is known.

    Raises:
        UserError: the catalogue, or a batch, has too few items; more than one greedy title.
    """

    def __init__(self, engine: PolicyEngine, source: str, count: int, seed: int, batch_size: int | None = None) -> None:
        self.engine, self.source, self.count, self.seed = engine, source, count, seed
        if source == "greedy" and count > 1:
            raise UserError(
                f"{count} negatives are asked for, and the policy decodes one title greedily.",
                "Pass -p negatives=1, or -p source=self for the titles of a beam search.",
            )
        if source == "batch" and batch_size is not None and batch_size <= count:
            raise UserError(
                f"{count} negatives are asked for, and in a batch of {batch_size} a row has {batch_size - 1} others.",
                "Raise --batch-size (align: --prompts-per-step), lower -p negatives=..., or choose another source.",
            )
        popularity = engine.catalogue.popularity
        self.log_popularity = np.log(popularity, where=popularity > 0, out=np.full(len(popularity), -np.inf))
        self.candidates = popularity > 0 if source == "popularity" else np.ones(len(popularity), dtype=bool)  # [I]
        available = int(self.candidates.sum())
        if available <= count:
            which = "items with training interactions" if source == "popularity" else "items"
            raise UserError(
                f"{count} negatives are asked for, and the catalogue has {available} {which}, the target included.",
                "Lower -p negatives=...",
            )

    def check(self, rows: Sequence[Row]) -> None:
        """Look whether every row that will be drawn for has enough items left.

        Raises:
            UserError: one has fewer than D; `batch` and `greedy` may find fewer.
        """
        if self.source not in ("batch", "greedy"):
            found = fewest_available(rows, self.count, self.candidates, self.barred)
            if found is not None:
                raise self._too_few(*found)

    def draw(self, rows: Sequence[Row], epoch: int) -> np.ndarray:
        """Draw for a batch of rows.

        Args:
            rows: [B].
            epoch: another epoch draws anew.

        Returns:
            [B, D] int64 items; INVALID at the end of rows for which `batch` or `greedy` finds fewer.

        Raises:
            UserError: a row has fewer items left than D.
        """
        items = np.full((len(rows), self.count), INVALID, dtype=np.int64)
        for place, found in enumerate(SOURCES[self.source](self, rows, epoch)):
            items[place, : len(found)] = found
        return items

    def generator(self, row: Row, epoch: int) -> np.random.Generator:
        """Return the row's own random numbers."""
        return np.random.default_rng([self.seed, 5, epoch, row.index])

    def barred(self, row: Row) -> np.ndarray:
        """Return the items that must not be rejected titles of a row."""
        return np.union1d(row.targets, self.engine.excluded(row))

    def enough(self, row: Row, found: np.ndarray) -> np.ndarray:
        """Return the first D of the items found.

        Raises:
            UserError: there are fewer.
        """
        if len(found) < self.count:
            raise self._too_few(row, len(found))
        return found[: self.count]

    def _too_few(self, row: Row, left: int) -> UserError:
        return UserError(
            f"User {row.user_id} has {left} items left to reject, and {self.count} negatives are asked for.",
            "Lower -p negatives=..., or choose another -p source=...",
        )


def _uniform(negatives: Negatives, rows: Sequence[Row], epoch: int) -> list[np.ndarray]:
    """Items drawn uniformly without replacement."""
    drawn = []
    size = len(negatives.engine.catalogue)
    for row in rows:
        barred = negatives.barred(row)
        some = negatives.generator(row, epoch).choice(size, min(size, negatives.count + len(barred)), replace=False)
        drawn.append(negatives.enough(row, some[~np.isin(some, barred)]))
    return drawn


def _popularity(negatives: Negatives, rows: Sequence[Row], epoch: int) -> list[np.ndarray]:
    """Items drawn by training popularity without replacement (the largest of log popularity plus Gumbel noise)."""
    drawn = []
    for row in rows:
        keys = negatives.log_popularity + negatives.generator(row, epoch).gumbel(size=len(negatives.log_popularity))
        keys[negatives.barred(row)] = -np.inf
        best = np.argpartition(-keys, negatives.count)[: negatives.count]
        best = best[np.argsort(-keys[best], kind="stable")]
        drawn.append(negatives.enough(row, best[keys[best] > -np.inf]))
    return drawn


def _batch(negatives: Negatives, rows: Sequence[Row], epoch: int) -> list[np.ndarray]:
    """Other rows' targets, at most D of them; a batch may offer fewer."""
    targets = np.unique(np.concatenate([row.targets[:1] for row in rows]))
    shuffled = [negatives.generator(row, epoch).permutation(targets) for row in rows]
    return [
        some[~np.isin(some, negatives.barred(row))][: negatives.count] for row, some in zip(rows, shuffled, strict=True)
    ]


def _self(negatives: Negatives, rows: Sequence[Row], epoch: int) -> list[np.ndarray]:
    """The best titles of the policy's beam search that are no targets: what it would wrongly recommend now."""
    widest = negatives.count + max(len(row.targets) for row in rows)
    width = min(widest, len(negatives.engine.catalogue))
    found = negatives.engine.beam(rows, width=width, size=width)[0].numpy()
    return [
        negatives.enough(row, items[(items != INVALID) & ~np.isin(items, row.targets)])
        for row, items in zip(rows, found, strict=True)
    ]


def _greedy(negatives: Negatives, rows: Sequence[Row], epoch: int) -> list[np.ndarray]:
    """The one title that the policy decodes greedily, where it is no target."""
    found = negatives.engine.greedy(rows, list_length=1).items.numpy()  # [B, 1]
    return [items[~np.isin(items, row.targets)] for row, items in zip(rows, found, strict=True)]


SOURCES: dict[str, Draw] = {
    "uniform": _uniform,
    "popularity": _popularity,
    "batch": _batch,
    "self": _self,
    "greedy": _greedy,
}


class Rejected:
    """Rejected titles that were drawn before, by the index of their row.

    Args:
        items: [X, D] int64; INVALID at the end of rows that have fewer.
        rows: [X] int64 indices of training rows.
    """

    def __init__(self, items: np.ndarray, rows: np.ndarray) -> None:
        self.items, self.place = items, {int(row): place for place, row in enumerate(rows)}

    def draw(self, rows: Sequence[Row], epoch: int) -> np.ndarray:
        """Return the rejected items of a batch of rows, the same every epoch: [B, D] int64."""
        return self.items[[self.place[row.index] for row in rows]]
