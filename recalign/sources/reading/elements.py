"""Lists in a record, such as all reviews of a user: every element of such a list is a record of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from recalign.sources.reading.cells import MEANINGS, MEND, Column, as_lists
from recalign.sources.reading.records import NAMED, Batch, Reason, Records, Refusal

if TYPE_CHECKING:
    import polars as pl

NO_OBJECTS = Reason("not a list of objects", "Mend or delete the record.")
SHOWN = 80  # characters of a cell that a message shows
PLACE = (1 << 32) - 1
"""Bits of an element's number that say its place in the list, from 1; those above say the record."""
TOGETHER = 1 << 14
"""Records around the lists, whose elements are taken out at once."""


class Elements(Records):
    """The elements of a list of objects, each with the cells of the record that the list stands in.

    A cell of the element hides one of the record by the same name. Records with an empty list, or none, have no
    elements.

    Args:
        table: the records.
        column: of the lists: a list of structs, or the text of the JSON of one.
        fields: keys of the objects, where the lists are JSON.
        around: columns of the record that its elements keep.
        cells: column -> an expression over the columns that stands in for it.
    """

    def __init__(
        self,
        table: Records,
        column: str,
        fields: Sequence[str] = (),
        *,
        around: Sequence[str],
        cells: Mapping[str, pl.Expr] | None = None,
    ) -> None:
        import polars as pl

        self.file, self.place = table.file, table.place
        self._table, self._column, self._cells = table, column, dict(cells or {})
        dtype = table.schema[column]
        self._listed = isinstance(dtype, pl.List)
        objects = {each.name: each.dtype for each in dtype.inner.fields} if isinstance(dtype, pl.List) else {}  # type: ignore[union-attr]
        self._inner = objects or dict.fromkeys(fields, pl.String())
        kept = [name for name in around if name not in (column, *self._inner)]
        self.schema = {**{name: table.schema[name] for name in kept}, **self._inner}

    def where(self, number: int) -> str:
        """Return the place of the record and, of an element, its place in the list."""
        return _where(self._table, self._column, number)

    def order(self, number: np.ndarray) -> np.ndarray:
        """Return the places in the lists."""
        return (number & PLACE) - 1

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Read the file. Arguments and errors: as the base's."""
        around = [name for name in columns if name not in self._inner]
        for batch in self._table.batches([*around, self._column]):
            refused = [_shifted(each) for each in batch.refused]
            for start in range(0, max(1, batch.frame.height), TOGETHER):
                frame, number = batch.frame.slice(start, TOGETHER), batch.number[start : start + TOGETHER]
                if not self._listed:
                    frame, bad = self._parsed(frame, number)
                    refused += bad
                frame, number = _taken_out(frame, number, [self._column])
                frame = frame.unnest(self._column)
                frame = frame.with_columns(**{name: cell for name, cell in self._cells.items() if name in columns})
                yield Batch(frame.select(columns), number, refused)
                refused = []

    def _parsed(self, frame: pl.DataFrame, number: np.ndarray) -> tuple[pl.DataFrame, list[Refusal]]:
        """Parse JSON; a record whose text is no list of objects is left without elements, and refused."""
        import polars as pl

        parsed = [_objects(cell) for cell in frame[self._column]]
        rows = [[{name: _text(each.get(name)) for name in self._inner} for each in some or ()] for some in parsed]
        bad = np.array([each is None for each in parsed], bool)
        said = _complaints(frame[self._column], number, bad)
        objects = pl.Series(self._column, rows, dtype=pl.List(pl.Struct(self._inner)))
        return frame.with_columns(objects), [Refusal(NO_OBJECTS, int(bad.sum()), said)] if said else []


class Aligned(Records):
    """Lists of a record that go together, such as a user's items and their times: one place of all is one record.

    Records with empty lists have no elements.

    Args:
        table: the records.
        lists: column of lists, or of their text -> what else to do than mend one; all are as long as the first.
    """

    def __init__(self, table: Records, lists: Mapping[str, str]) -> None:
        import polars as pl

        self.file, self.place = table.file, table.place
        self._table, self._lists, self._first = table, dict(lists), next(iter(lists))
        inner = {name: table.schema[name] for name in lists}
        inner = {name: each.inner if isinstance(each, pl.List) else pl.String() for name, each in inner.items()}  # type: ignore[misc]
        self.schema = {**table.schema, **inner}

    def where(self, number: int) -> str:
        """Return the place of the record and, of an element, its place in the list."""
        return _where(self._table, self._first, number)

    def order(self, number: np.ndarray) -> np.ndarray:
        """Return the places in the lists."""
        return (number & PLACE) - 1

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Read the file. Arguments and errors: as the base's."""
        around = [name for name in columns if name not in self._lists]
        for batch in self._table.batches([*around, *self._lists]):
            frame, number, refused = batch.frame, batch.number, [_shifted(each) for each in batch.refused]
            for name, hint in self._lists.items():
                lists, bad = as_lists(frame[name], Column(name, "list"))
                said = _complaints(frame[name], number, bad)
                frame = frame.with_columns(lists.alias(name)).filter(~bad)
                number, refused = number[~bad], [*refused, *_refusals(f"not {MEANINGS['list']}", hint, bad, said)]
                length, most = frame[name].list.len(), frame[self._first].list.len()
                bad = (length != most).to_numpy()
                said = [
                    (int(number[i]) << 32, f"{name} has {length[i]} values, {self._first} has {most[i]}")
                    for i in map(int, np.flatnonzero(bad)[:NAMED])
                ]
                frame = frame.filter(~bad)
                number, refused = number[~bad], [*refused, *_refusals("lists of different lengths", hint, bad, said)]
            frame, number = _taken_out(frame, number, list(self._lists))
            yield Batch(frame.select(columns), number, refused)


class Fields(Records):
    """The same records, the keys of whose objects are columns too, but for those that a column has the name of.

    `datasets` keeps a list of objects as one object of lists, which become columns of lists.

    Args:
        table: the records, some of whose columns are structs.
    """

    def __init__(self, table: Records) -> None:
        import polars as pl

        self.file, self.place, self._table, self.schema = table.file, table.place, table, dict(table.schema)
        self._of: dict[str, str] = {}
        for name, dtype in table.schema.items():
            for field in dtype.fields if isinstance(dtype, pl.Struct) else ():
                if field.name not in self.schema:
                    self.schema[field.name], self._of[field.name] = field.dtype, name  # type: ignore[assignment]

    def where(self, number: int) -> str:
        """Return the place of a record."""
        return self._table.where(number)

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Read the file. Arguments and errors: as the base's."""
        import polars as pl

        cells = [pl.col(self._of[name]).struct.field(name) if name in self._of else pl.col(name) for name in columns]
        for batch in self._table.batches([*dict.fromkeys(self._of.get(name, name) for name in columns)]):
            yield replace(batch, frame=batch.frame.select(cells))


def _taken_out(frame: pl.DataFrame, number: np.ndarray, lists: list[str]) -> tuple[pl.DataFrame, np.ndarray]:
    """Elements of some records, and their numbers: the record's, shifted, and the place in the list, from 1."""
    import polars as pl

    length = pl.col(lists[0]).list.len()
    frame = frame.with_columns(pl.Series(" record", number.astype(np.int64) << 32))
    frame = frame.filter(length > 0).with_columns(pl.int_ranges(1, length + 1).alias(" element"))
    frame = frame.explode([*lists, " element"])
    return frame.drop(" record", " element"), (frame[" record"] + frame[" element"]).to_numpy()


def _where(table: Records, column: str, number: int) -> str:
    """The place of an element, or of a whole record, as `_taken_out` numbers them."""
    record, element = number >> 32, number & PLACE
    return table.where(record) + (f", element {element} of {column}" if element else "")


def _shifted(refusal: Refusal) -> Refusal:
    """The same, its records numbered as `_taken_out` does."""
    return Refusal(refusal.reason, refusal.count, [(number << 32, said) for number, said in refusal.first])


def _complaints(cells: pl.Series, number: np.ndarray, bad: np.ndarray) -> list[tuple[int, str]]:
    """The first records that are refused, with their cells."""
    first = map(int, np.flatnonzero(bad)[:NAMED])
    return [(int(number[i]) << 32, f"{cells.name} = {cells[i]!r}"[:SHOWN]) for i in first]


def _refusals(text: str, hint: str, bad: np.ndarray, said: list[tuple[int, str]]) -> list[Refusal]:
    """The refusal of some records, if there are any."""
    return [Refusal(Reason(text, f"{MEND} {hint}".strip()), int(bad.sum()), said)] if said else []


def _objects(cell: str | None) -> list[dict[str, Any]] | None:
    """Objects in the JSON of a list; numbers stay as they are written. None where it holds something else."""
    try:
        found = json.loads(cell, parse_float=str, parse_int=str) if cell else []
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) and all(isinstance(each, dict) for each in found) else None


def _text(value: Any) -> str | None:
    """A scalar as text, and another nesting as its JSON."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
