"""Whether a model takes the shared attention: compare its logits with the plain path on a tiny input."""

from __future__ import annotations

import numpy as np
import torch
from transformers import PreTrainedModel

from recalign.generation.attention import NAME, shared
from recalign.generation.context import Context, Cost, PlainContext, SharedContext

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}  # relative to the largest logit; half precision: see below
HALF_TOLERANCE = 5e-2


def obstacle_to_sharing(model: PreTrainedModel) -> str:
    """Say why a model cannot share prompts between their continuations, or "" where it can."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            wanted = _walk(PlainContext(model, Cost(), 1024), model)
            with shared(model):
                if model.config._attn_implementation != NAME:
                    return "its attention cannot be replaced"
                found = _walk(SharedContext(model, Cost()), model)
    except (NotImplementedError, TypeError, ValueError, KeyError, IndexError, AttributeError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    finally:
        model.train(training)
    difference = float((wanted - found).abs().max() / wanted.abs().max().clamp_min(1e-6))
    if not difference <= TOLERANCE.get(model.dtype, HALF_TOLERANCE):
        return f"its logits would differ by {difference:.1e} of the largest"
    return ""


def _walk(context: Context, model: PreTrainedModel) -> torch.Tensor:
    """Logits of two prompts and of a small tree below each: every kind of pass that decoding makes."""
    generator = np.random.default_rng(0)
    width = int(model.config.get_text_config().vocab_size)
    prompts = [generator.integers(width, size=length) for length in (7, 4)]
    tokens = torch.from_numpy(generator.integers(width, size=(2, 3, 2))).to(model.device)
    segments = torch.tensor([0, 0, 1], device=model.device)
    parents = torch.full_like(segments, -1)
    counts = torch.tensor([2, 1, 1], device=model.device)
    logits = [context.begin(prompts, branching=True)]
    for step in tokens:
        more, parents = context.extend(segments, parents, step, counts)
        logits.append(more)
    return torch.cat(logits).float()
