"""Whether a model takes the shared attention: compare its logits with those of full forward passes on a tiny input."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from recalign import console
from recalign.decoding.positions import steady_positions
from recalign.decoding.prompt_cache import Cost, PromptCache, SharedPromptCache
from recalign.decoding.shared_attention import NAME, shared
from recalign.decoding.uncached import UncachedPrompts

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}  # see `_apart`; half precision: see below
HALF_TOLERANCE = 0.25
"""SmolLM2 and its adapters: 0.09 at most by rounding, and 0.8 to 1.3 where a token is read in the place of another."""
UNSUPPORTED = (NotImplementedError, TypeError, ValueError, KeyError, IndexError, AttributeError, RuntimeError)
"""What forwards raise at attention, masks or positions of another kind."""
ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}
"""transformers' kinds of layers in which a token sees the tokens that a mask says, and no others."""
KEEPS_STATES = "some of its layers are recurrent or convolutions"
BY_PLACE = "it scales tokens by their place in a pass, whatever their position"
"""Llama 4's layers without positions, beyond 8,192 tokens."""
LOOKS_BACK = "it looks back {} tokens only (sliding window)"
RESCALES = "it scales positions by the longest sequence of a pass, beyond {} tokens"
LENGTHS = (7, 4)  # of the prompts that are tried
REACH = 11  # tokens of the longest of them with what continues it


def obstacle_to_sharing(model: PreTrainedModel) -> str:
    """Say why a model cannot share prompts between their continuations, or "" where it can."""
    return _known_obstacle(model) or _found_obstacle(model)


def _known_obstacle(model: PreTrainedModel) -> str:
    """What few tokens would not show, or would not show in words."""
    if keeps_states(model):
        return KEEPS_STATES
    if getattr(model.config.get_text_config(), "attn_temperature_tuning", False):
        return BY_PLACE
    limit = sharing_limit(model)
    return limit.reason if limit is not None and limit.tokens < REACH else ""


def _found_obstacle(model: PreTrainedModel) -> str:
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            wanted = _walk(UncachedPrompts(model, Cost(), 1024), model)
            with shared(model):
                if model.config._attn_implementation != NAME:
                    return "its attention cannot be replaced"
                found = _walk(SharedPromptCache(model, Cost()), model)
    except UNSUPPORTED as error:
        return reason("tokens of several prompts in one sequence", error)
    finally:
        model.train(training)
    difference = _apart(found, wanted)
    if not difference <= (HALF_TOLERANCE if computes_in_half(model) else TOLERANCE[wanted.dtype]):
        return f"its logits would differ by {difference:.1e} of their spread"
    return ""


def _apart(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """How far logits [N, V] are from those wanted, relative to their spread over a row, in the worst row.

    What all logits of a row have in common counts for nothing: it changes no probability, and half precision
    rounds it most.
    """
    found, wanted = (each.float() - each.float().mean(dim=1, keepdim=True) for each in (found, wanted))
    return float(((found - wanted).norm(dim=1) / wanted.norm(dim=1).clamp_min(1e-6)).max())


def computes_in_half(model: PreTrainedModel) -> bool:
    """Whether some of a model's products are in half precision; what it returns may be float32 all the same."""
    under_accelerate = "_original_forward" in vars(model)  # what it keeps of a model that it puts under autocast
    mixed = under_accelerate or torch.is_autocast_enabled(model.device.type)
    return mixed or any(parameter.dtype not in TOLERANCE for parameter in model.parameters())


@dataclass(frozen=True)
class Limit:
    """How many tokens a sequence may have for shared passes to compute what a pass of its own does, and why no more."""

    tokens: int
    reason: str


def sharing_limit(model: PreTrainedModel) -> Limit | None:
    """Return up to what length sequences share prompts; None: however long they are."""
    limits = [
        Limit(tokens, why.format(tokens))
        for tokens, why in ((_window(model), LOOKS_BACK), (steady_positions(model), RESCALES))
        if tokens is not None
    ]
    return min(limits, key=lambda limit: limit.tokens, default=None)


def beyond_limit(model: PreTrainedModel, reach: int) -> bool:
    """Whether sequences of `reach` tokens are too long to share prompts; if so, users are told."""
    limit = sharing_limit(model)
    if limit is None or reach <= limit.tokens:
        return False
    tell(model, limit.reason)
    return True


def _window(model: PreTrainedModel) -> int | None:
    """How many tokens back some layer sees at most, its own included (sliding window or chunks); None: all of them."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["sliding_attention"])
    spans = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    return min((int(span) for span in spans if span), default=None) if kinds != {"full_attention"} else None


def keeps_states(model: PreTrainedModel) -> bool:
    """Whether some layer is no attention: a recurrent one or a convolution."""
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # of an adapter
    return bool(kinds - ATTENTION) or bool(inner._is_stateful)


def reason(what: str, error: Exception) -> str:
    """Write what a forward raised at an input as a reason."""
    said = " ".join(str(error).split()).rstrip(".")
    return f"it does not take {what} ({said})" if said else f"it does not take {what}"


def tell(model: PreTrainedModel, why: str) -> None:
    """Warn, once per reason, that a model encodes prompts again for every completion."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # of an adapter
    name = type(inner).__name__
    _tell_once(f"{name} does not share prompts among their continuations, which is slower: {why}.")


@functools.cache
def _tell_once(text: str) -> None:
    console.warn(text)


def _walk(cache: PromptCache, model: PreTrainedModel) -> torch.Tensor:
    """Logits of two prompts and of a small tree below each: every kind of pass that decoding makes."""
    generator = np.random.default_rng(0)
    width = int(model.config.get_text_config().vocab_size)
    prompts = [generator.integers(width, size=length) for length in LENGTHS]
    tokens = torch.from_numpy(generator.integers(width, size=(2, 3, 2))).to(model.device)
    segments = torch.tensor([0, 0, 1], device=model.device)
    parents = torch.full_like(segments, -1)
    counts = torch.tensor([2, 1, 1], device=model.device)
    logits = [cache.begin(prompts, branching=True)]
    for step in tokens:
        more, parents = cache.extend(segments, parents, step, counts)
        logits.append(more)
    return torch.cat(logits)
