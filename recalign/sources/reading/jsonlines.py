"""Records of JSON lines: keys and types are those of the whole file, and each line is read or refused."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recalign.errors import UserError
from recalign.sources.reading.files import blocks, whole_lines
from recalign.sources.reading.records import NAMED, Batch, Reason, Records, Refusal

if TYPE_CHECKING:
    import polars as pl

JSON = Reason("not a JSON object", "Mend or delete the line.")
TEXT = Reason("not UTF-8 text", "Name the encoding of the file with -p encoding=NAME, or mend the line.")
HALF = re.compile(  # of a surrogate pair, which polars reads as something else
    rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]", re.DOTALL
)
SCALAR, LIST, NESTED = "scalar", "list", "nested"
SHOWN = 60  # characters of a line that a message shows


class JsonLines(Records):
    """A number is the string that it is written as, a list of scalars a list of strings, any other nesting its JSON.

    Args:
        file: the file.
        encoding: of the text, where it has no byte order mark.

    Raises:
        UserError: the file is empty, or has no objects.
    """

    place = "line"

    def __init__(self, file: Path, encoding: str) -> None:
        import polars as pl

        self.file, self.encoding = file, encoding
        kinds: dict[str, set[str]] = {}
        first = b""
        for data, lines, _ in self._parts():
            first = first or b"".join(lines[:1])
            for key, found in _kinds(data, lines).items():
                kinds.setdefault(key, set()).update(found)
        if not kinds:
            problem = f"has no JSON object with keys; it begins with {first[:SHOWN]!r}" if first else "is empty"
            raise UserError(f"{file} {problem}.", "Check that this is the file you meant.")
        self.schema = {key: pl.List(pl.String) if each == {LIST} else pl.String() for key, each in kinds.items()}
        self._nested = {key for key, each in kinds.items() if NESTED in each or len(each) > 1}

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Read the file. Arguments and errors: as the base's."""
        schema = {name: self.schema[name] for name in columns}
        for data, lines, number in self._parts():
            if not lines:
                continue
            exact = self._nested.isdisjoint(columns) and not HALF.search(data)
            frame = _frame(data, schema, len(lines)) if exact else None
            yield self._line_by_line(lines, number, schema) if frame is None else Batch(frame, number)

    def _parts(self) -> Iterator[tuple[bytes, list[bytes], np.ndarray]]:
        """Blocks, each with its lines that are not blank and their numbers."""
        done = 0
        for data, _ in whole_lines(blocks(self.file, self.encoding)):
            every = data.split(b"\n")
            filled = [index for index, line in enumerate(every) if line.strip()]
            yield data, [every[index] for index in filled], done + 1 + np.array(filled, np.int64)
            done += len(every) - 1

    def _line_by_line(self, lines: list[bytes], number: np.ndarray, schema: dict[str, pl.DataType]) -> Batch:
        """Read lines of which something is wrong, or whose nesting polars would not write as JSON."""
        import polars as pl

        good = np.zeros(len(lines), bool)
        refused: dict[Reason, list[tuple[int, str]]] = {}
        texts: list[bytes] = []
        for index, line in enumerate(lines):
            value, reason, said = _object(line)
            if reason is None:
                cells = {name: value[name] for name in schema if name in value}
                for name in self._nested.intersection(cells):
                    if isinstance(cells[name], (list, dict)):
                        cells[name] = json.dumps(cells[name], ensure_ascii=False)
                good[index] = True
                texts.append(json.dumps(cells, ensure_ascii=False).encode())
            else:
                refused.setdefault(reason, []).append((int(number[index]), said))
        frame = _frame(b"\n".join(texts), schema, len(texts)) if texts else pl.DataFrame(schema=schema)
        assert frame is not None
        refusals = [Refusal(reason, len(each), each[:NAMED]) for reason, each in refused.items()]
        return Batch(frame, number[good], refusals)


def _frame(data: bytes, schema: dict[str, pl.DataType], height: int) -> pl.DataFrame | None:
    """Parse lines at once; None where polars cannot, or finds another number of records."""
    import polars as pl

    try:
        frame = pl.read_ndjson(io.BytesIO(data), schema=schema)
    except pl.exceptions.PolarsError:
        return None
    return frame if frame.height == height else None


def _object(line: bytes) -> tuple[dict[str, Any], Reason | None, str]:
    """The JSON object of a line, or why it holds none and what a message says of that."""
    try:
        text = line.decode().strip()
        value = json.loads(text, parse_constant=str)
        if not isinstance(value, dict):
            return {}, JSON, f"not a JSON object: {text[:SHOWN]!r}"
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError:
        return {}, TEXT, f"not UTF-8 text: {line[:SHOWN].decode('utf-8', 'replace')!r}"
    except UnicodeEncodeError:
        return {}, TEXT, f"half of a surrogate pair: {text[:SHOWN]!r}"
    except json.JSONDecodeError as problem:
        return {}, JSON, f"not JSON ({problem.msg}): {text[:SHOWN]!r}"
    except (ValueError, RecursionError) as problem:
        return {}, JSON, f"not readable as JSON ({problem}): {text[:SHOWN]!r}"
    return value, None, ""


def _kinds(data: bytes, lines: list[bytes]) -> dict[str, set[str]]:
    """Keys of objects, each with the kinds of its values; nulls have none."""
    import polars as pl

    if not lines or HALF.search(data):
        return _kinds_one_by_one(lines)
    try:
        frame = pl.read_ndjson(io.BytesIO(data), infer_schema_length=None)
    except pl.exceptions.PolarsError:
        return _kinds_one_by_one(lines)
    kinds: dict[str, set[str]] = {}
    for column in frame:
        dtype = column.dtype
        inner = dtype.inner if isinstance(dtype, pl.List) else dtype
        text = column.explode() if isinstance(dtype, pl.List) else column
        if inner == pl.String and text.str.contains(r"^[\[{]").any():
            return _kinds_one_by_one(lines)  # polars may have made text of lists and objects
        kind = NESTED if inner.is_nested() else LIST if isinstance(dtype, pl.List) else SCALAR
        kinds[column.name] = set() if dtype == pl.Null else {kind}
    return kinds


def _kinds_one_by_one(lines: list[bytes]) -> dict[str, set[str]]:
    """As `_kinds`, for lines of which something is wrong or whose types differ."""
    kinds: dict[str, set[str]] = {}
    for line in lines:
        for key, value in _object(line)[0].items():
            kinds.setdefault(key, set()).update(_kind(value))
    return kinds


def _kind(value: Any) -> set[str]:
    """The kind of a value: a list of scalars, another nesting, or a scalar; null is none."""
    if isinstance(value, list):
        return {NESTED if any(isinstance(each, (list, dict)) for each in value) else LIST}
    return set() if value is None else {NESTED if isinstance(value, dict) else SCALAR}
