"""What decoders share: how long a list may be, and how its positions are scored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recalign.api import INVALID, Field, Params, Predictions, UserError

if TYPE_CHECKING:
    import torch

    from recalign.decoding.engine import Engine


class ListParams(Params):
    """Parameters of every decoder that writes lists token by token."""

    repetition_penalty: float = Field(1.0, ge=1.0, description="as in transformers, over prompt and list")


class SamplingParams(ListParams):
    """Parameters of every decoder that samples lists."""

    temperature: float = Field(0.8, ge=0.01, description="sampling temperature (BLADE's setting)")


def writable_length(engine: Engine, size: int, name: str) -> int:
    """How many titles a decoder that writes lists may ask the model for: 1 on the next task, else `size`.

    Raises:
        UserError: more than the lists that the model was trained on have.
    """
    if engine.task == "next":
        return 1
    if size > engine.list_length:
        raise UserError(
            f"The decoder '{name}' writes the model's own lists, which have {engine.list_length} items, not {size}.",
            f"Ask for --size {engine.list_length} or less, or train on longer lists.",
        )
    return size


def as_predictions(items: np.ndarray) -> Predictions:
    """Lists [U, K] in the model's order as predictions: a position's score is minus its rank."""
    last = np.where(items != INVALID, np.arange(1, items.shape[1] + 1), 0)
    ranks = np.broadcast_to(np.arange(1.0, items.shape[1] + 1), items.shape)
    return Predictions(items.astype(np.int64), -ranks, last.max(axis=1))


def scored_predictions(items: torch.Tensor, scores: torch.Tensor) -> Predictions:
    """Titles [U, K] with their scores as predictions; the positions of missing titles score below all others."""
    found = items.numpy() != INVALID
    values = scores.numpy()
    lowest = values[np.isfinite(values)].min(initial=0.0)
    return Predictions(items.numpy(), np.where(found, values, lowest - 1), found.sum(axis=1))
