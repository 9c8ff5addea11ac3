"""Several processes that ask at once: each notes its answers in a folder of its own, and the first gathers them."""

from __future__ import annotations

from pathlib import Path

from recalign.rationales.journal import Journal
from recalign.removal import discard

PARTS = "parts"


def journal_of(folder: Path, rank: int) -> Journal:
    """Return the journal that a process adds to: the run's own for the first.

    Args:
        folder: of the run.
        rank: of the process.
    """
    own = folder / PARTS / str(rank) if rank else folder
    own.mkdir(parents=True, exist_ok=True)
    return Journal(own)


def gather(folder: Path, journal: Journal) -> None:
    """Let the run's journal have what other processes noted, now or before the run was cut off; twice is as once.

    Args:
        folder: of the run.
        journal: the run's, mended.
    """
    for part in sorted((folder / PARTS).glob("*")):
        journal.absorb(Journal(part))
    discard(folder / PARTS, inside=folder)
