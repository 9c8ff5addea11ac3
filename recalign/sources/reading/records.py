"""What every reader gives: batches of records, and for each record that is not among them, why."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recalign.api.sources import FileAccount, Refused

if TYPE_CHECKING:
    import polars as pl

NAMED = 3  # refused records of a reason that a report names


@dataclass(frozen=True)
class Reason:
    """Why records are refused.

    Args:
        text: what is the matter, as a report counts it, such as "a wrong number of fields".
        hint: what to do about it.
        harmless: as in `Refused`.
    """

    text: str
    hint: str
    harmless: bool = False


@dataclass(frozen=True)
class Refusal:
    """Records of a batch that are refused for one reason.

    Args:
        reason: why.
        count: how many.
        first: number and complaint of the first ones, `NAMED` at most.
    """

    reason: Reason
    count: int
    first: list[tuple[int, str]]


@dataclass(frozen=True)
class Batch:
    """Records of a file that follow each other.

    Args:
        frame: the columns asked for, of the n records that can be read.
        number: [n] int64, which record of the file each is, counted from 1.
        refused: the others.
    """

    frame: pl.DataFrame
    number: np.ndarray
    refused: list[Refusal] = field(default_factory=list)


@dataclass
class Tally:
    """Counts what is read and refused of a file, batch by batch.

    Args:
        records: of what file.
    """

    records: Records
    read: int = 0
    refused: dict[Reason, tuple[int, list[tuple[int, str]]]] = field(default_factory=dict)

    def add(self, read: int, refusals: Sequence[Refusal]) -> None:
        """Count a batch.

        Args:
            read: how many of its records were read.
            refusals: the others.
        """
        self.read += read
        for each in refusals:
            count, first = self.refused.get(each.reason, (0, []))
            self.refused[each.reason] = (count + each.count, [*first, *each.first][:NAMED])

    def account(self) -> FileAccount:
        """Return the sums; the reason that comes first is that of the first refused record."""
        by_place = sorted(self.refused.items(), key=lambda item: item[1][1][0])
        refused = {
            reason.text: Refused(
                count,
                tuple(f"{self.records.where(n)}: {said}" for n, said in first),
                reason.hint,
                reason.harmless,
            )
            for reason, (count, first) in by_place
        }
        return FileAccount(self.records.file, self.read, refused)


class Records(ABC):
    """The records of one file.

    Attributes:
        file: the file.
        schema: the type of each column.
        place: what a record's number counts: a `row` (from 1, after the header) or a `line` (from 1).
    """

    file: Path
    schema: dict[str, pl.DataType]
    place: str = "row"

    @abstractmethod
    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Read the file from its beginning; every record is in one batch, read or refused.

        Args:
            columns: names of the columns to read.

        Raises:
            UserError: the file cannot be read at all.
        """

    def where(self, number: int) -> str:
        """Return the place of a record, as messages name it.

        Args:
            number: of the record, as batches have it.
        """
        return f"{self.place} {number}"

    def order(self, number: np.ndarray) -> np.ndarray:
        """Return the times of records whose order is their time.

        Args:
            number: [n] of records, as batches have them.
        """
        return number - 1

    def lazy(self, without: np.ndarray) -> pl.LazyFrame:
        """Return a frame that streams the records that can be read.

        Args:
            without: numbers of records to leave out, sorted.
        """
        from polars.io.plugins import register_io_source

        def produce(
            columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, _: int | None
        ) -> Iterator[pl.DataFrame]:
            for batch in self.batches(columns or list(self.schema)):
                frame = batch.frame
                if len(without):
                    frame = frame.filter(~np.isin(batch.number, without))
                if rows is not None:
                    frame = frame.head(rows)
                    rows -= frame.height
                yield frame if predicate is None else frame.filter(predicate)
                if rows == 0:
                    return

        return register_io_source(produce, schema=self.schema)
