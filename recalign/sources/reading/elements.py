"""Lists of objects in a record, such as all reviews of a user: every object of such a list is a record of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from recalign.sources.reading.records import NAMED, Batch, Reason, Records, Refusal

if TYPE_CHECKING:
    import polars as pl

NO_LIST = Reason("not a list of objects", "Mend or delete the record.")
TOGETHER = 1 << 14
"""Records around the lists, whose elements are taken out at once."""


class Elements(Records):
    """The elements of a list of objects, each with the cells of the record that the list stands in.

    A cell of the element hides one of the record by the same name. Records with an empty list, or none, have no
    elements. An element's number is that of the record and its place in the list together; `where` tells them apart.

    Args:
        table: the records.
        column: of the lists: a list of structs, or the text of the JSON of one.
        fields: keys of the objects, where the lists are JSON.
        cells: column -> an expression over the columns that stands in for it.
    """

    def __init__(
        self,
        table: Records,
        column: str,
        fields: Sequence[str] = (),
        cells: Mapping[str, pl.Expr] | None = None,
    ) -> None:
        import polars as pl

        self.file, self.place = table.file, table.place
        self._table, self._column, self._cells = table, column, dict(cells or {})
        dtype = table.schema[column]
        self._listed = isinstance(dtype, pl.List)
        inner = (
            {field.name: field.dtype for field in dtype.inner.fields}  # type: ignore[union-attr]
            if isinstance(dtype, pl.List)
            else dict.fromkeys(fields, pl.String())
        )
        self._inner = list(inner)
        around = {name: each for name, each in table.schema.items() if name != column and name not in inner}
        self.schema = {**around, **inner}

    def where(self, number: int) -> str:
        """Return the place of the record and, of an element, its place in the list."""
        record, element = number >> 32, number & 0xFFFFFFFF
        return self._table.where(record) + (f", element {element} of {self._column}" if element else "")

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Read the file. Arguments and errors: as the base's."""
        around = [name for name in columns if name not in self._inner]
        for batch in self._table.batches([*around, self._column]):
            yield Batch(self._none(columns), np.zeros(0, np.int64), [_shifted(each) for each in batch.refused])
            for start in range(0, batch.frame.height, TOGETHER):
                part = batch.frame.slice(start, TOGETHER)
                yield self._taken_out(part, batch.number[start : start + TOGETHER], columns)

    def _none(self, columns: Sequence[str]) -> pl.DataFrame:
        """No elements."""
        import polars as pl

        return pl.DataFrame(schema={name: self.schema[name] for name in columns})

    def _taken_out(self, frame: pl.DataFrame, number: np.ndarray, columns: Sequence[str]) -> Batch:
        """Elements of some records."""
        import polars as pl

        refused: list[Refusal] = []
        if not self._listed:
            parsed = [_objects(cell) for cell in frame[self._column]]
            bad = [index for index, each in enumerate(parsed) if each is None]
            if bad:
                said = [
                    (int(number[i]) << 32, f"{self._column} = {frame[self._column][i][:60]!r}") for i in bad[:NAMED]
                ]
                refused = [Refusal(NO_LIST, len(bad), said)]
            inner = {name: pl.String() for name in self._inner}
            rows = [[{name: _text(each.get(name)) for name in inner} for each in some or ()] for some in parsed]
            frame = frame.with_columns(pl.Series(self._column, rows, dtype=pl.List(pl.Struct(inner))))
        frame = frame.with_columns(
            record=pl.Series(number.astype(np.int64)), element=pl.int_ranges(1, pl.col(self._column).list.len() + 1)
        )
        frame = frame.filter(pl.col(self._column).list.len() > 0).explode(self._column, "element")
        numbers = (frame["record"] * (1 << 32) + frame["element"]).to_numpy()
        frame = frame.drop("record", "element").unnest(self._column)
        frame = frame.with_columns(**{name: cell for name, cell in self._cells.items() if name in columns})
        return Batch(frame.select(columns), numbers, refused)


class Fields(Records):
    """The same records, the keys of whose objects are columns; a column around them hides one by the same name.

    `datasets` keeps a list of objects as one object of lists, which become columns of lists.

    Args:
        table: the records, some of whose columns are structs.
    """

    def __init__(self, table: Records) -> None:
        import polars as pl

        self.file, self.place, self._table = table.file, table.place, table
        self.schema = {name: each for name, each in table.schema.items() if not isinstance(each, pl.Struct)}
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


def _shifted(refusal: Refusal) -> Refusal:
    """The same, its records numbered as elements are."""
    return Refusal(refusal.reason, refusal.count, [(number << 32, said) for number, said in refusal.first])


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
