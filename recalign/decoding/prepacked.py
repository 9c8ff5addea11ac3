"""Faster linear layers for inference on a CPU: weights are laid out once for oneDNN.

PyTorch multiplies float32 matrices with MKL, which lays the weights out anew in every call, and does not use all that
processors of other makers than its own can do. Same products, summed in another order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cache

import torch
import torch.nn.functional as F

MOST = 2**31
"""Bytes of weights that are laid out at most: the copies take as much memory again."""
ROWS = 64
"""Rows that the layout is chosen for; others differ little."""


@contextlib.contextmanager
def prepacked(model: torch.nn.Module) -> Iterator[None]:
    """Let a model's plain linear layers use weights laid out for oneDNN, which must not change within; no gradients.

    Layers that are not float32 on a CPU keep their own product, or that somebody gave another forward, and so do all
    where there is no oneDNN, under autocast, or where the copies would be too large.
    """
    layers = [layer for layer in model.modules() if type(layer) is torch.nn.Linear and "forward" not in vars(layer)]
    layers = [layer for layer in layers if layer.weight.device.type == "cpu" and layer.weight.dtype == torch.float32]
    if sum(layer.weight.nbytes for layer in layers) > MOST or not _available():
        layers = []
    with contextlib.ExitStack() as stack:
        for layer in layers:
            stack.enter_context(replaced_forward(layer, _product(layer.weight, layer.bias)))
        yield


@contextlib.contextmanager
def replaced_forward(module: torch.nn.Module, forward: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Let a module compute something else; put back at the end what it had."""
    before = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = before


def _product(weight: torch.Tensor, bias: torch.Tensor | None) -> Callable[[torch.Tensor], torch.Tensor]:
    """What a linear layer computes."""
    ready = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)

    def product(inputs: torch.Tensor) -> torch.Tensor:
        if torch.is_autocast_enabled("cpu"):
            return F.linear(inputs, weight, bias)
        return torch.ops.mkldnn._linear_pointwise(inputs, ready, bias, "none", [], "")

    return product


@cache
def _available() -> bool:
    """Whether this build of PyTorch has oneDNN's linear layers, as its own compiler uses them, and they are right."""
    if not torch.backends.mkldnn.is_available():
        return False
    inputs, weight, bias = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(4, 3), torch.arange(4.0)
    try:
        with torch.no_grad():
            found = _product(weight, bias)(inputs)
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.equal(found, F.linear(inputs, weight, bias))
