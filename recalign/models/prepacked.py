"""Faster linear layers on a CPU: weights that stand still are laid out once for oneDNN.

PyTorch multiplies float32 matrices with MKL, which lays the weights out anew in every call, and does not use all that
processors of other makers than its own can do. Same products, summed in another order. During inference all weights
stand still; while an adapter is trained, those of its base do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cache, partial
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
    """Laid-out weights that outlast a call; they are made anew where weights were changed.

    Autograd counts changes but for those through `weight.data`, by which adapters are merged and averages of weights
    taken: these a sample of the numbers tells.
    """

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[torch.nn.Linear, tuple[tuple[Any, ...], LaidOut]] = WeakKeyDictionary()

    def of(self, layer: torch.nn.Linear) -> LaidOut:
        """Return the layout of a layer's weights."""
        now = *_version(layer.weight), *_sample(layer.weight)
        kept = self._kept.get(layer)
        if kept is None or kept[0] != now:
            # what is detached shares the memory: no other weights can come to lie there
            kept = self._kept[layer] = now, LaidOut(layer.weight.detach())
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
            laid_out = LaidOut(layer.weight) if kept is None else kept.of(layer)
            stack.enter_context(replaced_forward(layer, partial(laid_out.product, bias=layer.bias)))
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
        self._forward: LaidOut | None = None
        self._backward: LaidOut | None = None
        self._made_of: tuple[int, int] | None = None

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return x W^T + b, with a gradient for the input."""
        if not self.serves():
            return F.linear(inputs, self.layer.weight, self.layer.bias)
        return _FrozenLinear.apply(inputs, self)

    def serves(self) -> bool:
        """Whether the layer is frozen; layouts of weights that were changed meanwhile are forgotten."""
        if not is_frozen(self.layer) or torch.is_autocast_enabled("cpu"):
            return False
        now = _version(self.layer.weight)
        if self._made_of != now:
            self._made_of, self._forward, self._backward = now, None, None
        return True

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return x W^T + b."""
        if self._is_little(inputs):
            return F.linear(inputs, self.layer.weight, self.layer.bias)
        if self._forward is None:
            self._forward = LaidOut(self.layer.weight)
        return self._forward.product(inputs, self.layer.bias)

    def backward(self, gradient: torch.Tensor) -> torch.Tensor:
        """Return the gradient of the input: g W."""
        if self._is_little(gradient):
            return gradient @ self.layer.weight
        if self._backward is None:
            self._backward = LaidOut(self.layer.weight.detach().t())
        return self._backward.product(gradient)

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


class LaidOut:
    """Weights [out, in] that are laid out when they are first multiplied."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight = weight
        self._ready: torch.Tensor | None = None

    def __deepcopy__(self, _: object) -> LaidOut:
        """Layouts cannot be copied; what holds one sees that a copy's weights are others."""
        return self

    def product(self, inputs: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Return x W^T + b."""
        if torch.is_autocast_enabled("cpu"):
            return F.linear(inputs, self.weight, bias)
        if self._ready is None:
            self._ready = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach().contiguous(), ROWS)
        return torch.ops.mkldnn._linear_pointwise(inputs, self._ready, bias, "none", [], "")  # type: ignore[no-any-return]


def _version(weight: torch.Tensor) -> tuple[int, int]:
    """Where a weight lies, and how often autograd saw it change."""
    return weight.data_ptr(), 0 if weight.is_inference() else weight._version


def _sample(weight: torch.Tensor) -> list[float]:
    """Some 64 numbers of a weight, which what changes all of it changes, too."""
    rows, columns = (max(1, size // 8) for size in weight.shape)
    return weight.detach()[rows // 2 :: rows, columns // 2 :: columns].flatten().tolist()


@cache
def _available() -> bool:
    """Whether this build of PyTorch has oneDNN's linear layers, as its own compiler uses them, and they are right."""
    if not torch.backends.mkldnn.is_available():
        return False
    inputs, weight, bias = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(4, 3), torch.arange(4.0)
    try:
        with torch.no_grad():
            found = LaidOut(weight).product(inputs, bias)
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.equal(found, F.linear(inputs, weight, bias))
