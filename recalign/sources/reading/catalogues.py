"""Files that name the items of a catalogue: a JSON mapping between ids and titles, or lines of `id::title`."""

from __future__ import annotations

from pathlib import Path

from recalign.errors import UserError
from recalign.sources.reading.files import codec, document, whole_lines

SEPARATORS = ("::", "\t", "|", ",")


def read_titles(file: Path, encoding: str = "utf-8") -> dict[str, str]:
    """Return id -> title.

    Args:
        file: a JSON object id -> title, or title -> id where its name says so (name2id.json), or text with an id, a
            separator and a title a line.
        encoding: of the text, where it has no byte order mark.

    Raises:
        UserError: it is neither, or a title is no text.
    """
    if ".json" not in file.suffixes:
        return _lines(file, encoding)
    names = document(file, encoding)
    if not isinstance(names, dict):
        raise UserError(f"{file} holds a {type(names).__name__}, not an object id -> title.")
    if "2id" in file.name.lower():
        names = {str(item): title for title, item in names.items()}
    for key, title in names.items():
        if not isinstance(title, str):
            raise UserError(f"{file}: the title of {key!r} is {title!r}, not a text.", "Write every title as a string.")
    return names


def read_genres_by_title(file: Path, encoding: str = "utf-8") -> dict[str, list[str]]:
    """Return title -> genres of a JSON object.

    Args:
        file: of the object; genres are a list of texts, or one text.
        encoding: of the text, where it has no byte order mark.

    Raises:
        UserError: it is no such object.
    """
    told = document(file, encoding)
    if not isinstance(told, dict):
        raise UserError(f"{file} holds a {type(told).__name__}, not an object title -> genres.")
    return {title: list(map(str, each)) if isinstance(each, list) else [str(each)] for title, each in told.items()}


def _lines(file: Path, encoding: str) -> dict[str, str]:
    titles: dict[str, str] = {}
    number = 0
    for data, _ in whole_lines(file, codec(encoding)):
        try:
            lines = data.decode().split("\n")
        except UnicodeDecodeError:
            raise UserError(
                f"{file}: not UTF-8 text near line {number + 1}.", "Name the encoding with -p encoding=NAME."
            ) from None
        for line in lines[: len(lines) - (not lines[-1])]:
            number += 1
            if not line.strip():
                continue
            separator = next((mark for mark in SEPARATORS if mark in line), None)
            if separator is None:
                raise UserError(f"{file}, line {number}: no id and title: {line[:60]!r}.", "Write id::title.")
            item, title = line.split(separator)[:2] if separator == "::" else line.split(separator, 1)
            titles[item.strip()] = title.strip()
    return titles
