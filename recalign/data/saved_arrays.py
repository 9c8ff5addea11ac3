"""Named NumPy arrays in one file, such as the state of a recommender: written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recalign import reading
from recalign.workspace import atomic


def write_arrays(file: Path, **arrays: np.ndarray) -> None:
    """Write arrays to an `.npz` file.

    Raises:
        UserError: the disk is full.
    """
    with atomic(file) as temporary, open(temporary, "wb") as sink:
        np.savez(sink, **arrays)  # type: ignore[arg-type]


def read_arrays(file: Path, *names: str) -> list[np.ndarray]:
    """Read arrays that `write_arrays` wrote.

    Args:
        file: the `.npz` file.
        names: of the arrays to return, in that order.

    Raises:
        UserError: the file is missing or damaged, or lacks one of them.
    """
    found = reading.read_arrays(file, *names, hint="Make it again.")
    return [found[name] for name in names]
