"""From hidden states to logits and the distribution that is sampled from; decoding and training share these lines."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator

import torch
from torch.nn.functional import linear
from transformers import PreTrainedModel


def logits_of(model: PreTrainedModel, hidden: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Logits [D, C] of some tokens; only these rows of the head are used where the head is a linear layer."""
    head = model.get_output_embeddings()
    if type(head) is torch.nn.Linear:
        return linear(hidden, head.weight[columns], None if head.bias is None else head.bias[columns])
    return head(hidden)[:, columns]


def penalise(logits: torch.Tensor, seen: torch.Tensor, penalty: float) -> torch.Tensor:
    """Repetition penalty as transformers applies it (Keskar et al., 2019): seen tokens' logits shrink.

    Args:
        logits: any shape.
        seen: the same shape, bool: the token stands in the prompt or in the completion so far.
        penalty: 1.0 changes nothing.
    """
    if penalty == 1.0:
        return logits
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def masked_log_softmax(scores: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Log-probabilities renormalised over the valid entries of each row, float32; -inf elsewhere."""
    return scores.float().masked_fill(~valid, -torch.inf).log_softmax(dim=-1)


def draw(logps: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Sample a column of each row by its inverse distribution function.

    Args:
        logps: [N, C] log-probabilities, -inf for what must not come.
        uniforms: [N] float64 in [0, 1).

    Returns:
        [N] int64 columns.
    """
    mass = logps.double().exp()
    cumulative = mass.cumsum(dim=1)
    column = (cumulative <= uniforms[:, None] * cumulative[:, -1:]).sum(dim=1)
    last = mass.shape[1] - 1 - (mass > 0).flip(1).int().argmax(dim=1)  # rounding must not step past the last valid one
    return torch.minimum(column, last)


def selects_logits(model: torch.nn.Module) -> bool:
    """Whether a model's forward takes `logits_to_keep`, the places whose logits are wanted."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # of an adapter
    return "logits_to_keep" in inspect.signature(inner.forward).parameters


@contextlib.contextmanager
def logits_at(model: torch.nn.Module, rows: torch.Tensor, columns: torch.Tensor) -> Iterator[None]:
    """Let forward passes compute the logits of some places alone, [1, S, V], where the head is a module that they call.

    Unlike `logits_to_keep`, which takes the same columns of all rows.

    Args:
        model: whatever wraps it may be called.
        rows: [S] of the batch.
        columns: [S] of the sequence.
    """

    def pick(_: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return arguments[0][rows, columns][None], *arguments[1:]

    head = model.get_output_embeddings()  # type: ignore[operator]
    if head is None:
        yield
        return
    hook = head.register_forward_pre_hook(pick)
    try:
        yield
    finally:
        hook.remove()
