"""Records of JSON lines and their like: keys and types are those of the whole file; a line is read or refused."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from recalign.errors import UserError
from recalign.sources.reading.files import whole_lines
from recalign.sources.reading.objects import JSON, SHOWN, Parsed, half_pair, json_object, plain, python_object
from recalign.sources.reading.records import NAMED, Batch, Reason, Records, Refusal

if TYPE_CHECKING:
    import polars as pl

SAMPLE = 2000  # objects
SCALAR, LIST, NESTED = "scalar", "list", "nested"

JsonChunk = tuple[bytes, list[bytes], np.ndarray, np.ndarray]
"""Text of a file; its n objects; [n] their numbers; [n] the lines that they begin in."""


class JsonLines(Records):
    """A number is the string that it is written as, a list of scalars a list of strings, any other nesting its JSON.

    Args:
        file: the file.
        encoding: of the text, where it has no byte order mark.
        keys: those that are read, where the format of the file tells them: key -> whether its value may be a list or
            an object, which is then the text of its JSON. The file is then not read in advance, and those count that
            its first `SAMPLE` objects have.

    Raises:
        UserError: the file is empty, or has no objects.
    """

    place = "line"
    fast: ClassVar[bool] = True  # whether polars reads such objects

    def __init__(self, file: Path, encoding: str, keys: dict[str, bool] | None = None) -> None:
        import polars as pl

        self.file, self.encoding = file, encoding
        if keys is not None:
            seen = self._seen()
            self.schema = {key: pl.String() for key in keys if key in seen}
            self._nested = {key for key, nested in keys.items() if nested}
            if keys and not self.schema:
                raise UserError(
                    f"{file} has none of the keys {', '.join(keys)}; its first record has {', '.join(seen) or 'none'}.",
                    "Check that this is the file you meant.",
                )
            return
        kinds: dict[str, set[str]] = {}
        first = b""
        for data, texts, _, _ in self._parts():
            first = first or b"".join(texts[:1])
            for key, found in self._kinds(data, texts).items():
                kinds.setdefault(key, set()).update(found)
        if not kinds:
            problem = f"has no object with keys; it begins with {first[:SHOWN]!r}" if first else "is empty"
            raise UserError(f"{file} {problem}.", "Check that this is the file you meant.")
        self.schema = {key: pl.List(pl.String) if each == {LIST} else pl.String() for key, each in kinds.items()}
        self._nested = {key for key, each in kinds.items() if NESTED in each or len(each) > 1}

    def parse(self, text: bytes) -> Parsed:
        """Return the object of a text, or why there is none."""
        return json_object(text)

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Read the file. Arguments and errors: as the base's."""
        schema = {name: self.schema[name] for name in columns}
        for data, texts, number, line in self._parts():
            if not texts:
                continue
            exact = self.fast and self._nested.isdisjoint(columns) and not half_pair(data)
            frame = _frame(data, schema, len(texts)) if exact else None
            yield self._one_by_one(texts, number, line, schema) if frame is None else Batch(frame, number)

    def first_keys(self) -> Iterator[list[str]]:
        """Keys of each object that can be read, from the file's beginning."""
        for _, texts, _, _ in self._parts():
            for text in texts:
                value, reason, _ = self.parse(text)
                if reason is None:
                    yield list(map(str, value))

    def _seen(self) -> dict[str, None]:
        """Keys of the file's first objects, in their order."""
        return dict.fromkeys(chain.from_iterable(islice(self.first_keys(), SAMPLE)))

    def _parts(self) -> Iterator[JsonChunk]:
        """Blocks, each with its lines that are not blank."""
        done = 0
        for data, _ in whole_lines(self.file, self.encoding):
            every = data.split(b"\n")
            filled = [index for index, line in enumerate(every) if line.strip()]
            number = done + 1 + np.array(filled, np.int64)
            yield data, [every[index] for index in filled], number, number
            done += len(every) - 1

    def _one_by_one(
        self, texts: list[bytes], number: np.ndarray, line: np.ndarray, schema: dict[str, pl.DataType]
    ) -> Batch:
        """Read objects of which something is wrong, or which polars would not read as they are meant."""
        import polars as pl

        good = np.zeros(len(texts), bool)
        refused: dict[Reason, list[tuple[int, str]]] = {}
        kept: list[bytes] = []
        for index, text in enumerate(texts):
            value, reason, said = self.parse(text)
            if reason is None:
                cells = plain({name: value[name] for name in schema if name in value}, self._nested)
                if cells is not None and not half_pair(cells):
                    good[index] = True
                    kept.append(cells)
                    continue
                reason, said = JSON, f"a value that is no text and no finite number: {text[:SHOWN]!r}"
            where = f" (line {line[index]})" if self.place != "line" else ""
            refused.setdefault(reason, []).append((int(number[index]), said + where))
        frame = _frame(b"\n".join(kept), schema, len(kept)) if kept else pl.DataFrame(schema=schema)
        assert frame is not None
        refusals = [Refusal(reason, len(each), each[:NAMED]) for reason, each in refused.items()]
        return Batch(frame, number[good], refusals)

    def _kinds(self, data: bytes, texts: list[bytes]) -> dict[str, set[str]]:
        """Keys of objects, each with the kinds of its values; nulls have none."""
        kinds = _kinds_at_once(data) if self.fast and texts and not half_pair(data) else None
        if kinds is None:
            kinds = {}
            for text in texts:
                for key, value in self.parse(text)[0].items():
                    kinds.setdefault(str(key), set()).update(_kind(value))
        return kinds


class PythonLines(JsonLines):
    """The same of lines that are Python literals of dicts."""

    fast: ClassVar[bool] = False

    def parse(self, text: bytes) -> Parsed:
        """Return the dict of a text, or why there is none."""
        return python_object(text)


def _frame(data: bytes, schema: dict[str, pl.DataType], height: int) -> pl.DataFrame | None:
    """Parse lines at once; None where polars cannot, or finds another number of records."""
    import polars as pl

    try:
        frame = pl.read_ndjson(io.BytesIO(data), schema=schema)
    except pl.exceptions.PolarsError:
        return None
    return frame if frame.height == height else None


def _kinds_at_once(data: bytes) -> dict[str, set[str]] | None:
    """Keys of objects and the kinds of their values; None where polars does not tell them exactly."""
    import polars as pl

    try:
        frame = pl.read_ndjson(io.BytesIO(data), infer_schema_length=None)
    except pl.exceptions.PolarsError:
        return None
    kinds: dict[str, set[str]] = {}
    for column in frame:
        dtype = column.dtype
        inner = dtype.inner if isinstance(dtype, pl.List) else dtype
        text = column.explode() if isinstance(dtype, pl.List) else column
        if inner == pl.String and text.str.contains(r"^[\[{]").any():
            return None  # polars may have made text of lists and objects
        kind = NESTED if inner.is_nested() else LIST if isinstance(dtype, pl.List) else SCALAR
        kinds[column.name] = set() if dtype == pl.Null else {kind}
    return kinds


def _kind(value: Any) -> set[str]:
    """The kind of a value: a list of scalars, another nesting, or a scalar; null is none."""
    if isinstance(value, (list, tuple)):
        return {NESTED if any(isinstance(each, (list, dict, tuple)) for each in value) else LIST}
    return set() if value is None else {NESTED if isinstance(value, dict) else SCALAR}
