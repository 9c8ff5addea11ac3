"""Gradient checkpointing: activations within layers are computed again in the backward pass instead of being kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import copy_context
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from recalign.errors import UserError


def checkpoint_gradients(model: PreTrainedModel | PeftModel) -> None:
    """Let every layer of a model keep its input alone (Chen et al., 2016); gradients are the same.

    A layer is computed again under the attention that it was computed with, which passes that share prompts replace for
    their time only, and in the context (`contextvars`) of that time, whatever pass or thread is at work by then. It is
    so in evaluation mode too, in which such passes train without dropout.

    Raises:
        UserError: the architecture has no layers that can be computed again.
    """
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    layers = [module for module in inner.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not inner.supports_gradient_checkpointing or not layers:
        raise UserError(
            f"--gradient-checkpointing: {type(inner).__name__} cannot compute its layers again.",
            "Leave it out, and lower --token-budget or train an adapter (--lora) to save memory.",
        )
    for layer in layers:
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = partial(_checkpointed, inner, layer)  # type: ignore[assignment]
        layer.register_forward_pre_hook(_as_in_training)
        layer.register_forward_hook(_as_before, always_call=True)


def _checkpointed(
    model: PreTrainedModel, layer: GradientCheckpointingLayer, compute: Callable[..., Any], *inputs: Any
) -> Any:
    """Compute a layer, and again in the backward pass as it is now: its mode, the model's attention, the context."""
    _as_before(layer)  # what it was to be in training for is decided
    attention, context = model.config._attn_implementation, copy_context()

    def run(*inputs: Any) -> Any:
        with _attention(model, attention):
            return context.run(compute, *inputs)

    return checkpoint(run, *inputs, use_reentrant=False)


@contextlib.contextmanager
def _attention(model: PreTrainedModel, name: str) -> Iterator[None]:
    before = model.config._attn_implementation
    model.config._attn_implementation = name
    try:
        yield
    finally:
        model.config._attn_implementation = before


def _as_in_training(layer: GradientCheckpointingLayer, _: object) -> None:
    """Say that the layer itself is trained, for which transformers asks before it computes one again."""
    layer.mode_outside = layer.training  # type: ignore[assignment]
    layer.training = layer.training or torch.is_grad_enabled()


def _as_before(layer: GradientCheckpointingLayer, *_: object) -> None:
    layer.training = bool(layer.mode_outside)
