"""Which source reads a path that the user names alone: sources are asked what they recognise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from recalign import console
from recalign.errors import UserError
from recalign.plugins import registry

if TYPE_CHECKING:
    from recalign.api import Source

NAME_IT = "Name the source: recalign prepare SOURCE PATH."


def named_source(source: str, path: Path | None) -> tuple[str, Path | None]:
    """Return source and path; where a path stands in the source's place, the source that recognises it.

    Args:
        source: name of a source, or a path.
        path: what the source reads.

    Raises:
        UserError: no source recognises the path, or several do (all are named).
    """
    known = {entry.name for entry in registry.list_plugins("source")}
    if source in known or path is not None:
        return source, path
    if not Path(source).exists():
        if "/" in source or Path(source).suffix:
            raise UserError(f"{source} does not exist.", "Check the path. " + NAME_IT)
        return source, path
    found = guess(Path(source))
    console.say(f"{source} is taken for the source {found[0]} ({found[1]}).")
    return found[0], Path(source)


def guess(path: Path) -> tuple[str, str]:
    """Return the source that recognises a path, and what it recognises. Errors: as `named_source`."""
    particular: dict[str, str] = {}
    general: dict[str, str] = {}
    for entry in registry.list_plugins("source"):
        try:
            cls: type[Source] = registry.load(entry)  # type: ignore[assignment]
        except UserError:  # it fails to import, and is not needed
            continue
        try:
            seen = cls.recognises(path)
        except Exception as error:  # of one source; the others may know
            console.warn(f"The source '{entry.name}' cannot say whether {path} is its own ({error}).")
            continue
        if seen:
            (general if cls.general else particular)[entry.name] = seen
    candidates = particular or general
    if not candidates:
        inside = sorted(each.name for each in path.iterdir())[:5] if path.is_dir() else []
        held = f" It holds {', '.join(inside)}." if inside else ""
        raise UserError(f"No source recognises {path}.{held}", NAME_IT + " `recalign plugins list --kind source`")
    if len(candidates) > 1:
        named = " or ".join(f"{name} ({seen})" for name, seen in candidates.items())
        raise UserError(f"{path} may be for {named}.", NAME_IT)
    return next(iter(candidates.items()))
