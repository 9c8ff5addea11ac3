"""Rows that differ from a split's in one thing: the order of the history, its length, or the place of the positive."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from recalign.data.dataset import Row
from recalign.errors import UserError, did_you_mean

VARIATIONS = "variations"
"""Folder of a decode run that holds the predictions for varied rows."""
ORDER, CHOICE = 23, 24  # streams of random numbers


class Variation(ABC):
    """One way to change rows, at several values; everything else of a row stays, what it is measured by too.

    Args:
        numbers: what the user gave, each 1 or more, all different.

    Attributes:
        name: as users type it.
        form: of the option, for help and errors.
        heading: of the value, in tables.
        title: what is varied, in words.
        exchangeable: whether the values are draws, of which only the spread matters; else each is looked at by itself.
    """

    name: ClassVar[str]
    form: ClassVar[str]
    heading: ClassVar[str]
    title: ClassVar[str]
    exchangeable: ClassVar[bool] = False

    def __init__(self, numbers: Sequence[int]) -> None:
        self.values = tuple(sorted(numbers))

    @property
    @abstractmethod
    def needs(self) -> str:
        """What a row has to have, in words."""

    @abstractmethod
    def fits(self, row: Row) -> bool:
        """Return whether a row can be varied to every value."""

    @abstractmethod
    def vary(self, row: Row, value: int, seed: int) -> Row:
        """Return the changed row.

        Args:
            row: one that fits.
            value: one of the values.
            seed: of what is drawn.
        """


class HistoryOrder(Variation):
    """Permutes the history's items, with their ratings; when something was consumed stays in ascending order.

    A row's permutation depends on the seed, the permutation's number and the row alone.
    """

    name = "order"
    form = "order=P"
    heading = "permutation"
    title = "Order of the history"
    exchangeable = True
    needs = "a history of two items or more"

    def __init__(self, numbers: Sequence[int]) -> None:
        if len(numbers) > 1:
            raise UserError(
                f"--vary order={','.join(map(str, numbers))} gives {len(numbers)} numbers.",
                "Give one, the number of permutations: --vary order=10.",
            )
        super().__init__(range(1, numbers[0] + 1))

    def fits(self, row: Row) -> bool:
        """Return whether there is an order."""
        return len(row.history) > 1

    def vary(self, row: Row, value: int, seed: int) -> Row:
        """Return the row with a random order of its history."""
        order = np.random.default_rng([seed, ORDER, value, row.index]).permutation(len(row.history))
        return replace(row.recalling(order), times=row.times)


class HistoryLength(Variation):
    """Leaves of the history the latest items; the others count as consumed before, so that they stay excluded."""

    name = "length"
    form = "length=N,N,..."
    heading = "latest items"
    title = "Length of the history, controlled"

    @property
    def needs(self) -> str:
        """The longest history asked for."""
        return f"a history of {self.values[-1]} items or more"

    def fits(self, row: Row) -> bool:
        """Return whether the history is long enough for every value, so that all values answer the same rows."""
        return len(row.history) >= self.values[-1]

    def vary(self, row: Row, value: int, seed: int) -> Row:
        """Return the row with the `value` latest items of its history."""
        cut = len(row.history) - value
        return replace(row.recalling(slice(cut, None)), earlier=np.concatenate([row.earlier, row.history[:cut]]))


class PositivePlace(Variation):
    """Puts the first relevant target at a place among the candidates; the others keep the order that they have."""

    name = "place"
    form = "place=N,N,..."
    heading = "place"
    title = "Place of the positive among the candidates"

    @property
    def needs(self) -> str:
        """Candidates, as many as the last place asked for."""
        return f"a positive among {self.values[-1]} candidates or more"

    def fits(self, row: Row) -> bool:
        """Return whether there is a positive among enough candidates."""
        candidates = row.candidates
        return (
            candidates is not None
            and len(candidates) >= self.values[-1]
            and bool(np.isin(row.relevant, candidates).any())
        )

    def vary(self, row: Row, value: int, seed: int) -> Row:
        """Return the row with its positive at the place `value`, counted from 1."""
        assert row.candidates is not None, "it fits"
        positive = next(item for item in row.relevant if item in row.candidates)
        return replace(row, candidates=np.insert(row.candidates[row.candidates != positive], value - 1, positive))


KINDS: dict[str, type[Variation]] = {kind.name: kind for kind in (HistoryOrder, HistoryLength, PositivePlace)}


@dataclass(frozen=True)
class Varied:
    """Rows at one value of a variation, which are answered like others."""

    name: str
    value: int
    rows: list[Row]

    @property
    def folder(self) -> Path:
        """Where their predictions lie, below the run's folder."""
        return Path(VARIATIONS, f"{self.name}-{self.value}")


def parse_variations(texts: Sequence[str]) -> list[Variation]:
    """Read `--vary order=10 --vary length=1,5,20`.

    Raises:
        UserError: another form, an unknown variation, one given twice, a number given twice or below 1.
    """
    found: dict[str, Variation] = {}
    for text in texts:
        name, equals, given = (part.strip() for part in text.partition("="))
        if name not in KINDS:
            raise UserError(f"--vary {text!r}: there is no variation '{name}'.", did_you_mean(name, KINDS))
        numbers = [part.strip() for part in given.split(",")]
        if not equals or not all(number.isdecimal() and 0 < int(number) < 1_000_000 for number in numbers):
            raise UserError(f"--vary {text!r} is not of the form {KINDS[name].form}.", "Numbers count from 1.")
        if name in found or len({*map(int, numbers)}) < len(numbers):
            raise UserError(f"--vary {text!r} repeats what was given.", "Give each variation and each number once.")
        found[name] = KINDS[name]([int(number) for number in numbers])
    return list(found.values())


def vary_rows(variations: Sequence[Variation], rows: Sequence[Row], limit: int | None, seed: int) -> list[Varied]:
    """Vary the rows that each variation fits, the same ones at every value.

    Args:
        variations: which.
        rows: [U].
        limit: maximum number of rows per value; of more, that many are drawn.
        seed: of what is drawn.

    Raises:
        UserError: a variation fits no row.
    """
    varied = []
    for variation in variations:
        fitting = [row for row in rows if variation.fits(row)]
        if not fitting:
            raise UserError(
                f"--vary {variation.name} needs rows with {variation.needs}; none of the {len(rows)} has that.",
                "Ask for smaller numbers, or for another variation.",
            )
        if limit is not None and len(fitting) > limit:
            drawn = np.random.default_rng([seed, CHOICE]).choice(len(fitting), limit, replace=False)
            fitting = [fitting[place] for place in np.sort(drawn)]
        for value in variation.values:
            varied.append(Varied(variation.name, value, [variation.vary(row, value, seed) for row in fitting]))
    return varied
