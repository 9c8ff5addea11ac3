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
    plain = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if plain and not chunk.null_count and not chunk.values.null_count:  # a null among integers makes floats of all
        ends, values = chunk.offsets.to_numpy(), _read_only(chunk.values)
        return lambda place: values[ends[place] : ends[place + 1]]
    if isinstance(chunk[0], pa.ListScalar) and not pa.types.is_map(kind):
        return lambda place: _read_only(chunk[place].values) if chunk[place].is_valid else None
    return lambda place: chunk[place].as_py()


def _read_only(values: pa.Array) -> np.ndarray:
    found = values.to_numpy(zero_copy_only=False)
    found.flags.writeable = False
    return found
