"""Faster linear layers on a CPU: weights that stand still are laid out once for oneDNN.

PyTorch multiplies float32 matrices with MKL, which lays the weights out anew in every call, and does not use all that
processors of other makers than its own can do. Same products, summed in another order. During inference all weights
stand still; while an adapter is trained, those of its base do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

MOST = 2**31
"""Bytes of layouts at most: they are copies of the weights."""
ROWS = 64
"""Rows that the layout is chosen for; others differ little."""
LARGE, FEW = 2**24, 512
"""Numbers of a weight, and rows below which two layouts of so many are not worth their memory while a model is trained:
the head's, which runs at the tokens that are learnt, would be a fifth of SmolLM2's and gain 1% of an update."""
Product = Callable[[torch.Tensor], torch.Tensor]


class Layouts:
    """Laid-out weights that outlast a call; they are made anew where weights were changed, if autograd can see it."""

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[torch.nn.Linear, tuple[tuple[int, int], Product]] = WeakKeyDictionary()

    def product(self, layer: torch.nn.Linear) -> Product:
        """Return what a layer computes."""
        now = layer.weight.data_ptr(), layer.weight._version
        kept = self._kept.get(layer)
        if kept is None or kept[0] != now:
            # what is detached shares the memory: no other weights can come to lie there
            kept = self._kept[layer] = now, _product(layer.weight.detach(), layer.bias)
        return kept[1]


@contextlib.contextmanager
def prepacked(model: torch.nn.Module, layouts: Layouts | None = None) -> Iterator[None]:
    """Let a model's plain linear layers use weights laid out for oneDNN, which must not change within; no gradients.

    They are laid out anew in every call, or kept in `layouts` if there are some and nothing of the model is trained.
    Layers that are not float32 on a CPU keep their own product, or that somebody gave another forward, and so do all
    where there is no oneDNN, under autocast, or where the copies would be too large.
    """
    layers = _plain_layers(model)
    if sum(layer.weight.nbytes for layer in layers) > MOST:
        layers = []
    kept = layouts if is_frozen(model) else None
    with contextlib.ExitStack() as stack:
        for layer in layers:
            product = _product(layer.weight, layer.bias) if kept is None else kept.product(layer)
            stack.enter_context(replaced_forward(layer, product))
        yield


@contextlib.contextmanager
def prepacked_frozen(model: torch.nn.Module) -> Iterator[None]:
    """Let those of a model's plain linear layers that are frozen use weights laid out for oneDNN, gradients included.

    The gradient of a layer's input is a product with the same weights, transposed, which are laid out for that too.
    Both layouts are made when they are first needed, and kept. A layer that is unfrozen within has its own product
    again; weights that are changed have new layouts, if autograd can see the change: adapters, which peft merges by
    way of `weight.data`, are merged outside. Exceptions are those of `prepacked`, which may be used within and leaves
    these layers as they are.
    """
    layers = [layer for layer in _plain_layers(model) if is_frozen(layer)]
    if 2 * sum(layer.weight.nbytes for layer in layers) > MOST:
        layers = []
    with contextlib.ExitStack() as stack:
        for layer in layers:
            stack.enter_context(replaced_forward(layer, FrozenProduct(layer)))
        yield


@contextlib.contextmanager
def replaced_forward(module: torch.nn.Module, forward: Product) -> Iterator[None]:
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


class FrozenProduct:
    """What a frozen linear layer computes, with layouts of its weights that are made when they are first needed.

    Args:
        layer: may be unfrozen, and its weights changed, at any time.
    """

    def __init__(self, layer: torch.nn.Linear) -> None:
        self.layer = layer
        self._forward: Product | None = None
        self._backward: Product | None = None
        self._laid_out: tuple[int, int] | None = None

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return x W^T + b, with a gradient for the input."""
        if not self.serves():
            return F.linear(inputs, self.layer.weight, self.layer.bias)
        return _FrozenLinear.apply(inputs, self)

    def serves(self) -> bool:
        """Whether the layer is frozen; layouts of weights that were changed meanwhile are forgotten."""
        if not is_frozen(self.layer) or torch.is_autocast_enabled("cpu"):
            return False
        now = self.layer.weight.data_ptr(), self.layer.weight._version
        if self._laid_out != now:
            self._laid_out, self._forward, self._backward = now, None, None
        return True

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return x W^T + b."""
        if self._is_little(inputs):
            return F.linear(inputs, self.layer.weight, self.layer.bias)
        if self._forward is None:
            self._forward = _product(self.layer.weight, self.layer.bias)
        return self._forward(inputs)

    def backward(self, gradient: torch.Tensor) -> torch.Tensor:
        """Return the gradient of the input: g W."""
        if self._is_little(gradient):
            return gradient @ self.layer.weight
        if self._backward is None:
            self._backward = _product(self.layer.weight.detach().t(), None)
        return self._backward(gradient)

    def _is_little(self, rows: torch.Tensor) -> bool:
        """Whether a product of such rows is not worth a layout of the weights."""
        weight = self.layer.weight
        return weight.numel() >= LARGE and rows.numel() < FEW * rows.shape[-1]


class _FrozenLinear(torch.autograd.Function):
    """A frozen linear layer; nothing of its input is kept for the backward pass."""

    @staticmethod
    def forward(context: Any, inputs: torch.Tensor, product: FrozenProduct) -> torch.Tensor:
        context.product = product
        return product.forward(inputs)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return context.product.backward(gradient), None


def _plain_layers(model: torch.nn.Module) -> list[torch.nn.Linear]:
    """The linear layers that compute what PyTorch's do, in float32 on a CPU; none where oneDNN is missing."""
    if not _available():
        return []
    layers = [layer for layer in model.modules() if type(layer) is torch.nn.Linear and "forward" not in vars(layer)]
    return [layer for layer in layers if layer.weight.device.type == "cpu" and layer.weight.dtype == torch.float32]


def is_frozen(module: torch.nn.Module) -> bool:
    """Whether none of a module's weights is trained."""
    return not any(parameter.requires_grad for parameter in module.parameters())


def _product(weight: torch.Tensor, bias: torch.Tensor | None) -> Product:
    """What a linear layer computes; its weights are laid out when they are first multiplied."""
    ready: torch.Tensor | None = None

    def product(inputs: torch.Tensor) -> torch.Tensor:
        nonlocal ready
        if torch.is_autocast_enabled("cpu"):
            return F.linear(inputs, weight, bias)
        if ready is None:
            ready = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), ROWS)
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
