"""What `recalign plugins new` writes: a package with one plugin, a test that passes, and a README."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from string import Template

from recalign import __version__
from recalign.errors import UserError
from recalign.plugins.kinds import find_kind

TEMPLATES = Path(__file__).parent / "templates"


def write_package(word: str, name: str, folder: Path) -> list[Path]:
    """Write a package with one plugin, from the templates of its kind.

    Args:
        word: a kind of plugin, by any of its words.
        name: what users will type; a hyphen in it becomes an underscore in the names of modules.
        folder: where to write; must be new or empty.

    Returns:
        The files written.

    Raises:
        UserError: an unknown kind, a name that cannot be typed, or a folder with something in it.
    """
    kind = find_kind(word)
    if not re.fullmatch(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise UserError(
            f"'{name}' cannot be the name of a plugin.",
            "Use lower-case letters and digits, joined by single hyphens or underscores.",
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty.", "Choose another --out.")
    module = name.replace("-", "_")
    values = {
        "kind": kind.name,
        "hook": kind.hook,
        "group": kind.group,
        "name": name,
        "module": module,
        "dashed": name.replace("_", "-"),
        "cls": "".join(part.capitalize() for part in module.split("_")),
        "version": __version__,
    }
    files = {
        "pyproject.toml": "pyproject.toml.tmpl",
        "README.md": "README.md.tmpl",
        f"recalign_{module}.py": f"{kind.name}/plugin.py.tmpl",
        f"tests/test_{module}.py": f"{kind.name}/test.py.tmpl",
    }
    written = []
    for path, template in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        text = Template((TEMPLATES / template).read_text(encoding="utf-8"))
        file.write_text(text.substitute(values), encoding="utf-8")
        written.append(file)
    return written
