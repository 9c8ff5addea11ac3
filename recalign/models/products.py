"""How a model's layers compute as fast, and in as little memory, as they can; the results are theirs, to rounding."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from recalign.models.fused_lora import fused_adapters
from recalign.models.gated_mlp import gated_products
from recalign.models.prepacked import Layouts, prepacked, prepacked_frozen


@contextlib.contextmanager
def training_products(model: torch.nn.Module) -> Iterator[None]:
    """Let a model compute as fast as it can while its weights, or an adapter's, are trained."""
    with prepacked_frozen(model), fused_adapters(model, still=False), gated_products(model):
        yield


@contextlib.contextmanager
def inference_products(model: torch.nn.Module, layouts: Layouts | None = None) -> Iterator[None]:
    """Let a model compute as fast as it can; no weight may change within, and there are no gradients.

    It may be used within `training_products`. Where nothing is trained, `layouts` keeps what was made of the weights.
    """
    with prepacked(model, layouts), fused_adapters(model, still=True):
        yield
