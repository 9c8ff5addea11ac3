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

from recalign.models.prepacked import FrozenProduct, is_frozen, replaced_forward


@contextlib.contextmanager
def fused_adapters(model: torch.nn.Module, *, still: bool) -> Iterator[None]:
    """Let a model's LoRA layers add their term into what their bases compute.

    Args:
        model: those of its layers that are not peft's plain ones compute as ever.
        still: whether no weight changes within, so that the adapter's are cast once.
    """
    layers = [layer for layer in model.modules() if type(layer) is LoraLinear]
    own = [layer for layer in layers if isinstance(vars(layer).get("forward"), (type(None), FusedLora))]
    with contextlib.ExitStack() as stack:
        for layer in own:
            stack.enter_context(replaced_forward(layer, FusedLora(layer, still)))
        yield


class FusedLora:
    """What a frozen linear layer with a LoRA adapter computes: x W^T + b + s (x A^T) B^T.

    Args:
        layer: peft's; it computes by itself what is not that: several adapters, dropout, other kinds of LoRA or base.
        still: whether the adapter's weights stand still, so that they are cast once.
    """

    def __init__(self, layer: LoraLinear, still: bool) -> None:
        self.layer, self.still = layer, still
        self._cast: dict[tuple[int, torch.dtype], tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(self, inputs: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:  # noqa: D102
        layer = self.layer
        adapter = None if arguments or options else self.adapter(inputs)
        if adapter is None:
            return LoraLinear.forward(layer, inputs, *arguments, **options)
        down, up, scaling = adapter
        if torch.is_grad_enabled():
            return _FusedLinear.apply(inputs, down, up, scaling, layer.base_layer)
        output = layer.base_layer(inputs)
        down, up = self._cast_to(output.dtype, down, up)
        _add(output, F.linear(inputs, down), up, scaling)
        return output

    def adapter(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float] | None:
        """Return A [r, I], B [O, r] and the scale of the one adapter of such inputs, if it is a plain one."""
        layer = self.layer
        names = [name for name in layer.active_adapters if name in layer.lora_A]
        if len(names) != 1 or not (self._is_plain(names[0]) and self._serves(inputs)):
            return None
        return layer.lora_A[names[0]].weight, layer.lora_B[names[0]].weight, layer.scaling[names[0]]

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

    def _cast_to(self, dtype: torch.dtype, down: torch.Tensor, up: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.still:
            return down.to(dtype), up.to(dtype)
        key = id(down), dtype
        if key not in self._cast:
            self._cast[key] = down.to(dtype), up.to(dtype)
        return self._cast[key]


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
        output, *kept = adapted_product(inputs, down, up, scaling, base)
        context.save_for_backward(inputs, *kept)
        context.scaling, context.base = scaling, base
        return output

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inputs, inner, down, up = context.saved_tensors
        of_inputs, of_down, of_up = adapted_gradients(
            gradient, inputs, inner, down, up, context.scaling, context.base, context.needs_input_grad[0]
        )
        return of_inputs, of_down, of_up, None, None  # autograd casts those of the adapter to its dtype


def adapted_product(
    inputs: torch.Tensor, down: torch.Tensor, up: torch.Tensor, scaling: float, base: torch.nn.Linear
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return x W^T + b + s (x A^T) B^T [..., O], and what its gradients need: x A^T, A and B in the product's dtype."""
    output = base(inputs)
    down, up = down.to(output.dtype), up.to(output.dtype)
    inner = F.linear(inputs, down)  # [..., r]
    _add(output, inner, up, scaling)
    return output, inner, down, up


def adapted_gradients(
    gradient: torch.Tensor,
    inputs: torch.Tensor,
    inner: torch.Tensor,
    down: torch.Tensor,
    up: torch.Tensor,
    scaling: float,
    base: torch.nn.Linear,
    of_input: bool = True,
) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]:
    """Return the gradients of an adapted product's input, where it is asked for, of A and of B."""
    flat = gradient.reshape(-1, gradient.shape[-1])  # [M, O]
    of_inner = (flat @ up).mul_(scaling)  # [M, r]
    of_up = (flat.t() @ inner.view(-1, inner.shape[-1])).mul_(scaling)
    of_down = of_inner.t() @ inputs.reshape(-1, inputs.shape[-1]).to(of_inner.dtype)
    of_inputs = None
    if of_input:
        of_inputs = _of_input(base, gradient)
        of_inputs.view(-1, of_inputs.shape[-1]).addmm_(of_inner, down)
        of_inputs = of_inputs.to(inputs.dtype)
    return of_inputs, of_down, of_up


def _add(output: torch.Tensor, inner: torch.Tensor, up: torch.Tensor, scaling: float) -> None:
    output.view(-1, output.shape[-1]).addmm_(inner.view(-1, inner.shape[-1]).to(up.dtype), up.t(), alpha=scaling)


def _of_input(base: torch.nn.Linear, gradient: torch.Tensor) -> torch.Tensor:
    """G W, by the layout that the base has for it, if any."""
    product = vars(base).get("forward")
    if isinstance(product, FrozenProduct) and gradient.dtype == base.weight.dtype and product.serves():
        return product.backward(gradient)
    return gradient @ base.weight.to(gradient.dtype)
