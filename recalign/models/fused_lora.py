"""LoRA's term added where its layer's output lies: fewer operations, and none of the output's size but the output.

peft computes `base(x) + B(A(x)) * s` by six operations a layer. Where batches are small a GPU spends more time on
starting these than on doing them, and a CPU on moving what lies between. The result is that of peft, to rounding: the
adapter's float32 weights are cast to what the base computes in, as autocast does, in training and in inference alike.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear as LoraLinear
from torch.autograd.function import once_differentiable

from recalign.models.prepacked import FrozenProduct, is_frozen, prepacked, prepacked_frozen, replaced_forward


@contextlib.contextmanager
def training_products(model: torch.nn.Module) -> Iterator[None]:
    """Let a model's linear layers compute as fast as they can while its weights, or an adapter's, are trained."""
    with prepacked_frozen(model), _fused(model, still=False):
        yield


@contextlib.contextmanager
def inference_products(model: torch.nn.Module) -> Iterator[None]:
    """Let a model's linear layers compute as fast as they can; no weight may change within, and there are no gradients.

    It may be used within `training_products`.
    """
    with prepacked(model), _fused(model, still=True):
        yield


@contextlib.contextmanager
def _fused(model: torch.nn.Module, *, still: bool) -> Iterator[None]:
    layers = [layer for layer in model.modules() if type(layer) is LoraLinear]
    own = [layer for layer in layers if isinstance(vars(layer).get("forward"), (type(None), _FusedLora))]
    with contextlib.ExitStack() as stack:
        for layer in own:
            stack.enter_context(replaced_forward(layer, _FusedLora(layer, still)))
        yield


class _FusedLora:
    """What a frozen linear layer with a LoRA adapter computes: x W^T + b + s (x A^T) B^T.

    Args:
        layer: peft's; it computes by itself what is not that: several adapters, dropout, other kinds of LoRA or base.
        still: whether the adapter's weights stand still, so that they are cast once.
    """

    def __init__(self, layer: LoraLinear, still: bool) -> None:
        self.layer, self.still = layer, still
        self._cast: dict[tuple[str, torch.dtype], tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(self, inputs: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        layer = self.layer
        names = [name for name in layer.active_adapters if name in layer.lora_A]
        if arguments or options or len(names) != 1 or not (self._is_plain(names[0]) and self._serves(inputs)):
            return LoraLinear.forward(layer, inputs, *arguments, **options)
        down, up = layer.lora_A[names[0]].weight, layer.lora_B[names[0]].weight
        scaling = layer.scaling[names[0]]
        if torch.is_grad_enabled():
            return _FusedLinear.apply(inputs, down, up, scaling, layer.base_layer)
        output = layer.base_layer(inputs)
        down, up = self._cast_to(output.dtype, names[0], down, up)
        _add(output, F.linear(inputs, down), up, scaling)
        return output

    def _is_plain(self, name: str) -> bool:
        layer = self.layer
        return (
            not (layer.disable_adapters or layer.merged)
            and name not in layer.lora_variant
            and type(layer.lora_dropout[name]) is torch.nn.Identity
            and layer.lora_B[name].bias is None
        )

    def _serves(self, inputs: torch.Tensor) -> bool:
        """Whether the base is a plain layer, and a frozen one where there are gradients, that takes such inputs."""
        base = self.layer.base_layer
        if type(base) is not torch.nn.Linear:
            return False
        if inputs.dtype != base.weight.dtype and not torch.is_autocast_enabled(inputs.device.type):
            return False
        known = isinstance(vars(base).get("forward"), (type(None), FrozenProduct))
        return not torch.is_grad_enabled() or (known and is_frozen(base))

    def _cast_to(
        self, dtype: torch.dtype, name: str, down: torch.Tensor, up: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.still:
            return down.to(dtype), up.to(dtype)
        if (name, dtype) not in self._cast:
            self._cast[name, dtype] = down.to(dtype), up.to(dtype)
        return self._cast[name, dtype]


class _FusedLinear(torch.autograd.Function):
    """A frozen linear layer with LoRA's term; of the layer's input one copy is kept, which A's gradient needs."""

    @staticmethod
    def forward(
        context: Any,
        inputs: torch.Tensor,  # [..., I]
        down: torch.Tensor,  # A [r, I]
        up: torch.Tensor,  # B [O, r]
        scaling: float,
        base: torch.nn.Linear,
    ) -> torch.Tensor:
        output = base(inputs)  # [..., O]
        down, up = down.to(output.dtype), up.to(output.dtype)
        inner = F.linear(inputs, down)  # [..., r]
        _add(output, inner, up, scaling)
        context.save_for_backward(inputs, inner, down, up)
        context.scaling, context.base = scaling, base
        return output

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inputs, inner, down, up = context.saved_tensors
        flat = gradient.reshape(-1, gradient.shape[-1])  # [M, O]
        of_inner = (flat @ up).mul_(context.scaling)  # [M, r]
        of_up = (flat.t() @ inner.view(-1, inner.shape[-1])).mul_(context.scaling)
        of_down = of_inner.t() @ inputs.reshape(-1, inputs.shape[-1]).to(of_inner.dtype)
        of_inputs = None
        if context.needs_input_grad[0]:
            of_inputs = _of_input(context.base, gradient)
            of_inputs.view(-1, of_inputs.shape[-1]).addmm_(of_inner, down)
            of_inputs = of_inputs.to(inputs.dtype)
        return of_inputs, of_down, of_up, None, None  # autograd casts those of the adapter to its dtype


def _add(output: torch.Tensor, inner: torch.Tensor, up: torch.Tensor, scaling: float) -> None:
    output.view(-1, output.shape[-1]).addmm_(inner.view(-1, inner.shape[-1]).to(up.dtype), up.t(), alpha=scaling)


def _of_input(base: torch.nn.Linear, gradient: torch.Tensor) -> torch.Tensor:
    """G W, by the layout that the base has for it, if any."""
    product = vars(base).get("forward")
    if isinstance(product, FrozenProduct) and gradient.dtype == base.weight.dtype and product.serves():
        return product.backward(gradient)
    return gradient @ base.weight.to(gradient.dtype)
