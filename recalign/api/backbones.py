"""Backbones: what computes the embeddings of added item tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recalign.api.base import Plugin
from recalign.data.catalogue import Catalogue

if TYPE_CHECKING:
    import torch


class Backbone(Plugin, ABC):
    """Computes the input embeddings of added item tokens from vectors of the items.

    It serves datasets with atomic identifiers: one added token per item. Where such a token stands in a prompt or a
    response, the language model reads projector(vector of its item) in place of a row of its embedding matrix. Prompts
    and responses stay token ids, and the model's head keeps its own rows, so all searches work as they do without a
    backbone. The vectors are constants; the projector is trained, saved, resumed and exported with the model.
    """

    @property
    def files(self) -> list[Path]:
        """Files that `vectors` reads: their content decides whether a finished run still fits."""
        return []

    @abstractmethod
    def vectors(self, catalogue: Catalogue) -> np.ndarray:
        """Return the vectors of all items: [I, D], finite; computed once, when training begins.

        Args:
            catalogue: the items.

        Raises:
            UserError: files are missing or damaged.
        """

    def projector(self, dimensions: int, hidden_size: int) -> torch.nn.Module:
        """Return the module that maps vectors [..., D] to embeddings [..., H]; by default one linear layer.

        The default gives vectors whose entries have variance 1 embeddings whose entries have variance 1 / H, which is
        about what language models have.

        Args:
            dimensions: D.
            hidden_size: H.
        """
        import torch

        layer = torch.nn.Linear(dimensions, hidden_size)
        torch.nn.init.normal_(layer.weight, std=(dimensions * hidden_size) ** -0.5)
        torch.nn.init.zeros_(layer.bias)
        return layer
