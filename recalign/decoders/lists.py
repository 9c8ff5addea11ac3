"""What decoders share: how long a list may be, and how its positions are scored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recalign.api import INVALID, Engine, Field, Params, Predictions
from recalign.tasks import find_task

if TYPE_CHECKING:
    import torch


class ListParams(Params):
    """Parameters of every decoder that writes lists token by token."""

    repetition_penalty: float = Field(1.0, ge=1.0, description="as in transformers, over prompt and list")


class SampledListParams(ListParams):
    """Parameters of every decoder that samples lists."""

    temperature: float = Field(0.8, ge=0.01, description="sampling temperature (BLADE's setting)")


def writable_length(engine: Engine, size: int, name: str) -> int:
    """Return how many titles a decoder that writes responses may ask the model for, as the task says.

    Raises:
        UserError: more than the lists that the model was trained on have.
    """
    return find_task(engine.task).writable_length(engine.list_length, size, name)


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
