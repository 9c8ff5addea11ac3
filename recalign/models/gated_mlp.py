"""Gated feed-forward layers that keep two tensors of their width for the backward pass, not four.

Of `down(act(gate(x)) * up(x))`, autograd keeps gate, act(gate), up and, where `down` learns or has an adapter, their
product: in a Llama more than half of all that is kept. Here the activation and the product are computed again. The
result and the gradients are the layer's own: the same operations in the same order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable
from transformers.activations import SiLUActivation

from recalign.models.fused_lora import FusedLora, adapted_gradients, adapted_product
from recalign.models.prepacked import replaced_forward

PARTS = ("gate_proj", "up_proj", "down_proj", "act_fn")
"""What such layers are made of, as Llama, Qwen, Mistral, Gemma, SmolLM and many others name it."""


@contextlib.contextmanager
def gated_products(model: torch.nn.Module) -> Iterator[None]:
    """Let a model's gated feed-forward layers keep less; what computes something else stays as it is."""
    layers = [layer for layer in model.modules() if _is_gated(layer)]
    with contextlib.ExitStack() as stack:
        for layer in layers:
            stack.enter_context(replaced_forward(layer, _GatedMlp(layer)))
        yield


def _is_gated(layer: torch.nn.Module) -> bool:
    if not all(hasattr(layer, name) for name in PARTS) or "forward" in vars(layer):
        return False
    names = {name for name, _ in layer.named_children()}
    activation = layer.act_fn
    learns = isinstance(activation, torch.nn.Module) and any(True for _ in activation.parameters())
    return names <= set(PARTS) and not learns


class _GatedMlp:
    """What a gated feed-forward layer computes; whether it is one that its parts tell all about is tried once.

    Args:
        layer: with the parts that `PARTS` names.
    """

    def __init__(self, layer: torch.nn.Module) -> None:
        self.layer = layer
        self.plain: bool | None = None

    def __call__(self, inputs: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        layer = self.layer
        if arguments or options or not (torch.is_grad_enabled() and self._is_plain(inputs)):
            return type(layer).forward(layer, inputs, *arguments, **options)
        gate, values, down = layer.gate_proj(inputs), layer.up_proj(inputs), layer.down_proj
        adapted = vars(down).get("forward")
        if isinstance(adapted, FusedLora) and not (down._forward_hooks or down._forward_pre_hooks):
            adapter = adapted.adapter(gate)
            if adapter is not None:
                return _GatedAdapted.apply(gate, values, *adapter, down.base_layer, layer.act_fn)
        return down(_Gated.apply(gate, values, layer.act_fn))

    @torch.no_grad()
    def _is_plain(self, inputs: torch.Tensor) -> bool:
        """Whether the layer's own forward is `down(act(gate(x)) * up(x))` alone, by a token of the first input."""
        if self.plain is None:
            layer, token = self.layer, inputs.detach().reshape(-1, inputs.shape[-1])[:1]
            modes = [(module, module.training) for module in layer.modules()]
            layer.eval()  # dropout would draw random numbers, of which an interrupted run does not know
            own = type(layer).forward(layer, token)
            ours = layer.down_proj(layer.act_fn(layer.gate_proj(token)) * layer.up_proj(token))
            for module, mode in modes:
                module.training = mode
            self.plain = isinstance(own, torch.Tensor) and torch.equal(own, ours)
        return self.plain


class _Gated(torch.autograd.Function):
    """act(gate) * values, of which the two alone are kept."""

    @staticmethod
    def forward(
        context: Any, gate: torch.Tensor, values: torch.Tensor, act: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        context.save_for_backward(gate, values)
        context.act = act
        return act(gate) * values

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gate, values = context.saved_tensors
        active, back = _activated(context.act, gate)
        return back(gradient * values), gradient * active, None


class _GatedAdapted(torch.autograd.Function):
    """A frozen linear layer with LoRA's term on act(gate) * values, of which the two alone are kept."""

    @staticmethod
    def forward(
        context: Any,
        gate: torch.Tensor,  # [..., I]
        values: torch.Tensor,  # [..., I]
        down: torch.Tensor,  # A [r, I]
        up: torch.Tensor,  # B [O, r]
        scaling: float,
        base: torch.nn.Linear,
        act: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        output, *kept = adapted_product(act(gate) * values, down, up, scaling, base)
        context.save_for_backward(gate, values, *kept)
        context.scaling, context.base, context.act = scaling, base, act
        return output

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gate, values, inner, down, up = context.saved_tensors
        active, back = _activated(context.act, gate)
        inputs = active * values
        of_inputs, of_down, of_up = adapted_gradients(gradient, inputs, inner, down, up, context.scaling, context.base)
        assert of_inputs is not None
        return back(of_inputs * values), of_inputs * active, of_down, of_up, None, None, None


Gradient = Callable[[torch.Tensor], torch.Tensor]


def _activated(act: Callable[[torch.Tensor], torch.Tensor], gate: torch.Tensor) -> tuple[torch.Tensor, Gradient]:
    """Return act(gate), and what leads from its gradient to that of the gate; hooks of a module run no second time."""
    if type(act) in (torch.nn.SiLU, SiLUActivation):  # autograd's own step, without an autograd within the autograd
        return F.silu(gate), lambda gradient: torch.ops.aten.silu_backward(gradient, gate)
    with torch.enable_grad():
        leaf = gate.detach().requires_grad_()
        active = (act.forward if isinstance(act, torch.nn.Module) else act)(leaf)
    return active.detach(), lambda gradient: torch.autograd.grad(active, leaf, gradient)[0]
