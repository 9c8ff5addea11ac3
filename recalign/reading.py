"""The one place where files that users name are read: bounded in size and depth, and told what is wrong with them.

`reading` wraps every library's reader; the functions below it read the kinds of files that recalign reads itself.
"""

from __future__ import annotations

import contextlib
import json
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from recalign.errors import UserError, shortened

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import polars as pl

MAX_BYTES = 1 << 28
"""Bytes of a JSON file; the tokenizers of large vocabularies have a tenth of it."""
MAX_SOURCE_BYTES = 1 << 20
"""Bytes of a text that people write: a template, a recipe."""
MAX_DEPTH = 100
"""Levels of lists and tables inside each other."""
LONG_KEY = re.compile(rf"""(?<![\w"'.-])(?:[\w"'-]{{1,99}} ?\. ?){{{MAX_DEPTH}}}""")
"""A dotted key of TOML with more parts than that."""
HALF_WRITTEN = "It may be half-written; make it again."


class FileRecord(BaseModel):
    """Base of what recalign relies on in a JSON file of its own; keys that are not declared are kept as they are."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False, protected_namespaces=())


@contextlib.contextmanager
def reading(path: Path | str, hint: str = HALF_WRITTEN, what: str = "is not readable") -> Iterator[None]:
    """Let a library read what a path names; whatever it raises becomes what, where, and what to do.

    Args:
        path: of the file or folder.
        hint: what to do about it.
        what: fits between the path and the library's own words.

    Raises:
        UserError: the library raises anything, panics of those written in Rust and want of memory included.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        missing = error.filename or path
        raise UserError(f"{missing} does not exist.", hint) from None
    except (MemoryError, RecursionError) as error:
        much = "needs more memory than there is" if isinstance(error, MemoryError) else "is nested too deeply"
        raise UserError(f"{path} {what}: it {much}.", hint) from error
    except Exception as error:
        raise UserError(f"{path} {what}: {_said(error)}.", hint) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of pyo3, for libraries written in Rust
            raise
        raise UserError(f"{path} {what}: {_said(error)}.", hint) from error


def read_text(path: Path, limit: int = MAX_SOURCE_BYTES, hint: str = "Check the file.") -> str:
    """Read a UTF-8 text, with or without a byte order mark.

    Args:
        path: of the file.
        limit: bytes that it may have.
        hint: what to do where it cannot be read.

    Raises:
        UserError: it is missing, no file, larger, or no UTF-8 text.
    """
    with reading(path, hint):
        facts = Path(path).stat()
        if not stat.S_ISREG(facts.st_mode):
            raise UserError(f"{path} is no file.", hint)
        if facts.st_size > limit:
            raise UserError(f"{path} has {facts.st_size:,} bytes; at most {limit:,} are read.", hint)
        return Path(path).read_text(encoding="utf-8-sig")


def parse_json(
    text: str, path: Path | str, hint: str = HALF_WRITTEN, *, finite: bool = True, unique: bool = False
) -> Any:
    """Parse JSON of whole characters.

    Args:
        text: the JSON.
        path: what holds it, for the error.
        hint: what to do where it is broken.
        finite: refuse NaN and infinities, which are no JSON, though Python writes them.
        unique: refuse an object that states a key twice, as one that a person wrote may.

    Raises:
        UserError: it is no JSON, nested too deeply, or holds NaN, an infinity or half a character; a key stands twice.
    """
    with reading(path, hint, "is not readable JSON"):
        pairs = _unique if unique else None
        numbers: Any = {"parse_constant": _refused, "parse_float": _finite} if finite else {}
        value = json.loads(text, object_pairs_hook=pairs, **numbers)
        _check_depth(value, path, hint)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair cannot be written again
        return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"'{next(name for name in names if names.count(name) > 1)}' stands in it twice")
    return found


def read_json(path: Path, hint: str = HALF_WRITTEN, *, finite: bool = True) -> Any:
    """Read a JSON file. Arguments and errors: as `read_text` and `parse_json`."""
    return parse_json(read_text(path, MAX_BYTES, hint), path, hint, finite=finite)


def read_object(path: Path, hint: str = HALF_WRITTEN, *, finite: bool = True) -> dict[str, Any]:
    """Read a JSON file that holds an object. Errors: as `read_json`; it holds something else."""
    value = read_json(path, hint, finite=finite)
    if not isinstance(value, dict):
        raise UserError(f"{path} holds {_kind(value)}, not an object.", hint)
    return value


def read_record(path: Path, schema: type[FileRecord], hint: str = HALF_WRITTEN) -> dict[str, Any]:
    """Read a JSON file of recalign's own, and hold it against what recalign relies on.

    Args:
        path: of the file.
        schema: the keys that are relied on, with their types.
        hint: what to do where it is another.

    Raises:
        UserError: as `read_object`; a key is missing or has another type.
    """
    return checked(read_object(path, hint), schema, path, hint)


def checked(
    value: dict[str, Any], schema: type[FileRecord], path: Path | str, hint: str = HALF_WRITTEN
) -> dict[str, Any]:
    """Hold an object against a schema and return it. Arguments and errors: as `read_record`."""
    try:
        schema.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the object"
        found = "" if first["type"] == "missing" else f", not {shortened(repr(first['input']), 80)}"
        raise UserError(f"{path}: {place}: {first['msg'].lower()}{found}.", hint) from None
    return value


def parse_toml(text: str, path: Path | str, hint: str = "Mend that place.") -> dict[str, Any]:
    """Parse TOML. Arguments and errors: as `parse_json`."""
    if long := LONG_KEY.search(text):  # tomllib's time grows with the square of a key's parts
        line = text.count("\n", 0, long.start()) + 1
        raise UserError(f"{path}, line {line}: a key has more than {MAX_DEPTH} parts.", hint)
    with reading(path, hint, "is no readable TOML"):
        document = tomllib.loads(text)
        _check_depth(document, path, hint)
        return document


def read_parquet(path: Path, hint: str = HALF_WRITTEN) -> pl.DataFrame:
    """Read a Parquet file. Errors: it is missing or damaged."""
    import polars as pl

    with reading(path, hint):
        return pl.read_parquet(path, glob=False)


def read_arrays(path: Path, *names: str, hint: str = HALF_WRITTEN) -> dict[str, np.ndarray]:
    """Read named arrays of an `.npz` file, without pickles.

    Args:
        path: of the file.
        names: of the arrays; none: all.
        hint: what to do where it cannot be read.

    Raises:
        UserError: it is missing or damaged, holds pickles, or lacks one of the arrays.
    """
    import numpy as np

    with reading(path, hint), np.load(path, allow_pickle=False) as arrays:
        missing = next((name for name in names if name not in arrays), None)
        if missing is not None:
            raise UserError(f"{path} has no array '{missing}'.", hint)
        found = {name: arrays[name] for name in names or arrays.files}
        strange = next((name for name, each in found.items() if not isinstance(each, np.ndarray)), None)
        if strange is not None:
            raise UserError(f"{path} is not readable: '{strange}' in it is no array.", hint)
        return found


def sound(read: Callable[[], object]) -> str:
    """Try to read something; return what is wrong with it, or nothing."""
    try:
        read()
    except UserError as error:
        return error.what
    return ""


def _said(error: BaseException) -> str:
    """First line of a library's words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    return shortened((lines[0] if lines else type(error).__name__).rstrip("."), 300)


def _check_depth(value: Any, path: Path | str, hint: str) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        inner = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level = [child for children in inner for child in children]
        if not level:
            return
    raise UserError(f"{path} has more than {MAX_DEPTH} levels of lists and tables inside each other.", hint)


def _kind(value: Any) -> str:
    return {list: "a list", str: "a text", type(None): "null"}.get(type(value), f"the value {value!r}")


def _refused(constant: str) -> float:
    raise ValueError(f"{constant} is no number of JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if value - value != 0:
        raise ValueError(f"{shortened(digits, 40)} is too large a number")
    return value
