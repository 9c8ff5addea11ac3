"""Rows of a batch in one sequence, without padding, and what all of them begin with once: the instruction, say.

The same numbers, gradients included, from fewer tokens. A row attends to the common beginning and to itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from recalign.decoding import shared_attention
from recalign.decoding.prompt_cache import common_beginning
from recalign.decoding.shared_prompt import SharedPromptPass


@dataclass(frozen=True)
class PackedRows:
    """B rows as one sequence of M tokens.

    Args:
        tokens: [M].
        positions: [M] place of each token in its row.
        common: how many tokens at its beginning are those of every row.
        starts: [B] where what each row has of its own begins.
        reading: who sees whom.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    common: int
    starts: torch.Tensor
    reading: SharedPromptPass

    def places(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Return where the tokens at some columns [S] of rows [S] are."""
        return torch.where(columns < self.common, columns, self.starts[rows] + columns - self.common)


def pack_rows(rows: Sequence[np.ndarray], device: torch.device) -> PackedRows:
    """Lay out rows of tokens, at least one a row."""
    common = common_beginning(rows)
    own = np.array([len(row) for row in rows]) - common
    parts = [rows[0][:common], *(row[common:] for row in rows)]
    places = [np.arange(common), *(common + np.arange(count) for count in own)]
    starts = common + own.cumsum() - own
    nothing = np.zeros(0, dtype=np.int64)
    reading = SharedPromptPass(common, own, nothing, nothing, device)
    tokens, positions = (torch.from_numpy(np.concatenate(each)).long().to(device) for each in (parts, places))
    return PackedRows(tokens, positions, common, torch.from_numpy(starts).to(device), reading)


def gains_by_packing(model: torch.nn.Module) -> bool:
    """Whether a model that takes shared prompts trains faster on packed rows: on a CPU, where nothing is dropped.

    What rows have in common would drop the same in all of them.
    """
    if model.device.type not in shared_attention.ROW_BY_ROW:  # type: ignore[union-attr]
        return False
    return not model.training or not any(_dropped(module) for module in model.modules())


def _dropped(module: torch.nn.Module) -> bool:
    """Whether a module drops or jitters some of what it computes: a layer of dropout, or one that does so itself."""
    if isinstance(module, torch.nn.modules.dropout._DropoutNd):
        return module.p > 0
    shares = [value for name, value in vars(module).items() if "drop" in name or "jitter" in name]
    return any(isinstance(share, float) and share > 0 for share in shares)
