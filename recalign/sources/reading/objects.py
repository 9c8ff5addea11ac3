"""One object of a text: JSON, or the Python literals that older dumps are written in, which are never evaluated."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Callable
from typing import Any

from recalign.sources.reading.records import Reason

JSON = Reason("not a JSON object", "Mend or delete the line.")
LITERAL = Reason("not a Python literal of a dict", "Mend or delete the line.")
TEXT = Reason("not UTF-8 text", "Name the encoding of the file with -p encoding=NAME, or mend the line.")
HALF = re.compile(  # of a surrogate pair, which polars reads as something else
    rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]", re.DOTALL
)
SHOWN = 60  # characters of a line that a message shows

Parsed = tuple[dict[str, Any], Reason | None, str]
"""The object of a text, or why there is none and what a message says of that."""


def half_pair(data: bytes) -> bool:
    """Whether JSON text holds half of a surrogate pair; most text holds no escape that could be one."""
    return (b"\\ud" in data or b"\\uD" in data) and HALF.search(data) is not None


def json_object(text: bytes) -> Parsed:
    """Parse JSON. Result: as `Parsed`."""
    return _parsed(text, JSON, lambda line: json.loads(line, parse_constant=str))


def python_object(text: bytes) -> Parsed:
    """Parse a Python literal, such as `{u'asin': '0001'}`. Result: as `Parsed`."""
    return _parsed(text, LITERAL, _literal)


def _literal(text: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes that Python does not know
        return ast.literal_eval(text)


def _parsed(data: bytes, reason: Reason, parse: Callable[[str], Any]) -> Parsed:
    form = reason.text.removeprefix("not ").removeprefix("a ")
    try:
        text = data.decode().strip()
        value = parse(text)
        if not isinstance(value, dict):
            return {}, reason, f"not a {form}: {text[:SHOWN]!r}"
        if half_pair(data):
            json.dumps(value, ensure_ascii=False).encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError as problem:
        half = problem.encoding.startswith("utf-16")
        shown = text[:SHOWN] if half else data[:SHOWN].decode("utf-8", "replace")
        return {}, TEXT, f"{'half of a surrogate pair' if half else 'not UTF-8 text'}: {shown!r}"
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError) as problem:
        why = getattr(problem, "msg", "") or str(problem).partition(":")[0] or "it is nested too deeply"
        return {}, reason, f"not a {form} ({why}): {text[:SHOWN]!r}"
    return value, None, ""


def plain(cells: dict[str, Any], nested: set[str]) -> bytes | None:
    """Return the JSON of cells that polars reads as text; None where they hold what JSON cannot write.

    Args:
        cells: key -> value.
        nested: keys whose values, where they are lists or objects, become the text of their JSON.
    """
    try:
        for name in nested.intersection(cells):
            if isinstance(cells[name], (list, dict, tuple, set)):
                cells[name] = json.dumps(cells[name], ensure_ascii=False, default=_listed)
        return json.dumps(cells, allow_nan=False, default=_listed).encode()
    except (ValueError, TypeError):
        return None


def _listed(value: Any) -> Any:
    """Sets as lists, anything else that JSON does not know as the text that Python shows."""
    return sorted(value, key=str) if isinstance(value, (set, frozenset)) else str(value)
