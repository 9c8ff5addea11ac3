"""Columns of a memory-mapped Arrow table, one row at a time, as NumPy sees them.

Reading a value is slicing a buffer. A general reader builds Python objects on the way, which takes ten times as long,
and may round: that of `datasets` makes float32 of float64, which tells times to the minute only.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


class Columns:
    """A table's values by column and row.

    Args:
        table: of strings, numbers and lists of numbers.
    """

    def __init__(self, table: pa.Table) -> None:
        self._columns = {name: _Column(table[name]) for name in table.column_names}

    def value(self, name: str, row: int) -> Any:
        """Return what a row holds: a str, a number, an array that may not be written to; None where it has nothing."""
        column = self._columns.get(name)
        return None if column is None else column.at(row)


class _Column:
    """One column; what leads to a chunk's values is made at first use.

    Args:
        chunks: in the order of their rows.
    """

    def __init__(self, chunks: pa.ChunkedArray) -> None:
        self.chunks = [chunk for chunk in chunks.chunks if len(chunk)]
        self.starts = np.cumsum([0, *(len(chunk) for chunk in self.chunks)]).tolist()
        self._readers: dict[int, Callable[[int], Any]] = {}

    def at(self, row: int) -> Any:
        """Return a row's value."""
        place = bisect_right(self.starts, row) - 1
        reader = self._readers.get(place)
        if reader is None:
            reader = self._readers[place] = _reader(self.chunks[place])
        return reader(row - self.starts[place])


def _reader(chunk: pa.Array) -> Callable[[int], Any]:
    """Return what reads the value at a place of a chunk."""
    import pyarrow as pa

    kind = chunk.type
    if not chunk.null_count and (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        ends, values = chunk.offsets.to_numpy(), chunk.values.to_numpy(zero_copy_only=False)
        return lambda place: values[ends[place] : ends[place + 1]]
    if pa.types.is_nested(kind):
        return lambda place: _listed(chunk[place])
    return lambda place: chunk[place].as_py()


def _listed(value: pa.Scalar) -> Any:
    return value.values.to_numpy(zero_copy_only=False) if value.is_valid else None
