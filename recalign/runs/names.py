"""Names of runs in tables."""

from __future__ import annotations

from pathlib import Path


def run_name(folder: Path) -> str:
    """Name a run by its folder; those such as `fold=1` are places in a recipe's sweep, the step's is above them."""
    return next((part for part in reversed(folder.parts) if "=" not in part), folder.name)
