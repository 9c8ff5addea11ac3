"""Cuts completions into parts that fit a token budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Microbatch(NamedTuple):
    """Completions that share a pass: ascending row numbers, and the tokens that it holds at most, padding included."""

    rows: np.ndarray
    tokens: int


def microbatches(
    prompts: Sequence[np.ndarray],
    lengths: np.ndarray,
    groups: np.ndarray,
    budget: int,
    *,
    whole: bool = False,
    tree_mask: bool = True,
) -> list[Microbatch]:
    """Cut N completions into parts that fit a budget; a prompt with many completions may be cut too.

    Args:
        prompts: [P] token ids.
        lengths: [N] completions' lengths.
        groups: [N] ascending.
        budget: maximum number of tokens per part, padding included; a longer completion makes a part of its own.
        whole: keep all completions of a prompt in one part, even beyond the budget.
        tree_mask: as in `completion_logps`; without it, every completion has a copy of its prompt.

    Returns:
        The parts; together their rows are all N, each once.
    """
    pieces: list[tuple[int, int, np.ndarray]] = []  # width, how many rows of that width, completions of one prompt
    for group, prompt in enumerate(prompts):
        rows = np.flatnonzero(groups == group)
        if tree_mask:
            room = max(budget - len(prompt), 1)
            part = np.zeros(len(rows), dtype=np.int64) if whole else (np.cumsum(lengths[rows]) - 1) // room
            cut = [rows[part == p] for p in np.unique(part)]
            pieces += [(len(prompt) + int(lengths[piece].sum()), 1, piece) for piece in cut]
        else:
            cut = [rows] if whole else np.split(rows, len(rows))
            pieces += [(len(prompt) + int(lengths[piece].max()), len(piece), piece) for piece in cut]
    pieces.sort(key=lambda piece: -piece[0])
    parts: list[list[np.ndarray]] = []
    sizes: list[tuple[int, int]] = []  # of each part: its widest piece, which comes first, and its rows
    for width, count, rows in pieces:
        if not parts or (sizes[-1][1] + count) * sizes[-1][0] > budget:
            parts.append([])
            sizes.append((width, 0))
        parts[-1].append(rows)
        sizes[-1] = (sizes[-1][0], sizes[-1][1] + count)
    return [
        Microbatch(np.sort(np.concatenate(part)), width * count)
        for part, (width, count) in zip(parts, sizes, strict=True)
    ]
