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
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
SHOWN = 60  # characters of a line that a message shows


class JsonLines(Records):
    """A number is the string that it is written as, a list of scalars a list of strings, any other nesting its JSON.

    Args:
        file: the file.
        encoding: of the text, where it has no byte order mark.

    Raises:
        UserError: the file is empty.
    """

    place = "line"

    def __init__(self, file: Path, encoding: str) -> None:
        import polars as pl

        self.file, self.encoding = file, encoding
        lists: dict[str, bool | None] = {}  # None: nothing but nulls so far
        empty = True
        for data, lines, _ in self._parts():
            empty = empty and not lines
            for key, is_list in _kinds(data, lines).items():
                seen = lists.get(key)
                lists[key] = is_list if seen is None else seen and is_list is not False
        if empty:
            raise UserError(f"{file} is empty.", "Check that this is the file you meant.")
        self.schema = {key: pl.List(pl.String) if is_list else pl.String() for key, is_list in lists.items()}

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Read the file. Arguments and errors: as the base's."""
        schema = {name: self.schema[name] for name in columns}
        for data, lines, number in self._parts():
            if not lines:
                continue
            frame = None if SURROGATE.search(data) else _frame(data, schema, len(lines))
            yield self._line_by_line(lines, number, schema) if frame is None else Batch(frame, number)

    def _parts(self) -> Iterator[tuple[bytes, list[bytes], np.ndarray]]:
        """Blocks, each with its lines that are not blank and their numbers."""
        done = 0
        for data, _ in whole_lines(blocks(self.file, self.encoding)):
            every = data.split(b"\n")
            filled = [index for index, line in enumerate(every) if line.strip()]
            yield data, [every[index] for index in filled], done + 1 + np.array(filled, np.int64)
            done += len(every) - 1

    @staticmethod
    def _line_by_line(lines: list[bytes], number: np.ndarray, schema: dict[str, pl.DataType]) -> Batch:
        """Read lines of which something is wrong."""
        import polars as pl

        kept: list[pl.DataFrame] = []
        good = np.zeros(len(lines), bool)
        refused: dict[Reason, list[tuple[int, str]]] = {}
        texts: list[bytes] = []
        for index, line in enumerate(lines):
            value, reason, said = _object(line)
            if reason is None:
                text = json.dumps({name: value[name] for name in schema if name in value}, ensure_ascii=False).encode()
                good[index] = True
                texts.append(text)
            else:
                refused.setdefault(reason, []).append((int(number[index]), said))
        if texts:
            frame = _frame(b"\n".join(texts), schema, len(texts))
            assert frame is not None
            kept.append(frame)
        whole = kept[0] if kept else pl.DataFrame(schema=schema)
        refusals = [Refusal(reason, len(each), each[:NAMED]) for reason, each in refused.items()]
        return Batch(whole, number[good], refusals)


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


def _kinds(data: bytes, lines: list[bytes]) -> dict[str, bool | None]:
    """Keys of objects, each with whether its values are lists of scalars; None where all are null."""
    import polars as pl

    if not lines:
        return {}
    try:
        schema = pl.read_ndjson(io.BytesIO(data), infer_schema_length=None).schema
    except pl.exceptions.PolarsError:
        return _kinds_one_by_one(lines)
    nested = (pl.List, pl.Struct)
    return {
        key: None if dtype == pl.Null else isinstance(dtype, pl.List) and not isinstance(dtype.inner, nested)
        for key, dtype in schema.items()
    }


def _kinds_one_by_one(lines: list[bytes]) -> dict[str, bool | None]:
    """As `_kinds`, for lines of which something is wrong or whose types differ."""
    kinds: dict[str, bool | None] = {}
    for line in lines:
        for key, value in _object(line)[0].items():
            seen = kinds.get(key)
            kinds[key] = seen if value is None else _is_flat(value) and seen is not False
    return kinds


def _is_flat(value: Any) -> bool:
    """Whether a value is a list of scalars."""
    return isinstance(value, list) and not any(isinstance(each, (list, dict)) for each in value)
