"""Buffers for the keys and values of rows, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

Block = tuple[torch.Tensor, torch.Tensor]
"""Keys and values [R, H, L, D] of R rows."""


@dataclass
class KeyValues:
    """Keys and values of R rows with room for L tokens each, layer by layer.

    Args:
        rows: R.
        room: L.
        keys: layer -> [R, H, L, D].
        values: layer -> [R, H, L, D].
    """

    rows: int
    room: int
    keys: dict[int, torch.Tensor] = field(default_factory=dict)
    values: dict[int, torch.Tensor] = field(default_factory=dict)

    def put(self, layer: int, key: torch.Tensor, value: torch.Tensor, row: torch.Tensor, column: torch.Tensor) -> None:
        """Store M tokens' keys and values [H, M, D] at (row, column), [M] each."""
        for buffers, new in ((self.keys, key), (self.values, value)):
            if layer not in buffers:
                buffers[layer] = new.new_zeros(self.rows, new.shape[0], self.room, new.shape[2])
            buffers[layer][row, :, column] = new.transpose(0, 1)

    def block(self, layer: int, length: int | None = None) -> Block:
        """Keys and values [R, H, length, D] of a layer."""
        return self.keys[layer][:, :, :length], self.values[layer][:, :, :length]

    def start_with(self, prefix: KeyValues) -> None:
        """Begin every row with the one row of `prefix`."""
        for mine, theirs in ((self.keys, prefix.keys), (self.values, prefix.values)):
            for layer, tensor in theirs.items():
                mine[layer] = tensor.new_zeros(self.rows, tensor.shape[1], self.room, tensor.shape[3])
                mine[layer][:, :, : prefix.room] = tensor

    def grow(self, room: int) -> None:
        """Make room for more tokens per row."""
        if room > self.room:
            for buffers in (self.keys, self.values):
                for layer, tensor in buffers.items():
                    buffers[layer] = F.pad(tensor, (0, 0, 0, room - self.room))
            self.room = room

    def retain(self, rows: torch.Tensor, room: int) -> None:
        """Forget all rows but these, and columns from `room` on."""
        self.rows, self.room = len(rows), room
        for buffers in (self.keys, self.values):
            for layer, tensor in buffers.items():
                buffers[layer] = tensor[rows, :, :room]
