"""What the losses of all families of objectives have to hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from recalign.api import TokenObjective

DIRECTIONS, STEP = 6, 1e-3
TOLERANCE, FLOOR = 0.03, 3e-3
"""Of finite differences: relative and absolute; single precision and the curvature of losses leave a tenth of that."""


def loss_problems(
    objective: Any, batch: Any, parts: list[Any], inputs: torch.Tensor, remake: Callable[[torch.Tensor], Any]
) -> Iterator[str]:
    """Look at an objective's loss: a finite scalar, the mean of its parts' by their weights, and its gradient.

    Args:
        objective: of any family.
        batch: what its `loss` takes.
        parts: the same batch, cut.
        inputs: the tensor that batch and parts are made from; its gradient is looked at.
        remake: makes the same batch of other inputs.
    """
    state = objective.state_dict()
    _survey(objective, [batch])
    loss, metrics = objective.loss(batch)
    if loss.shape != ():
        yield f"loss returns shape {tuple(loss.shape)}; it must be a scalar"
        return
    loss.backward(retain_graph=True)
    if not loss.isfinite():
        yield "loss is NaN or infinite"
    elif inputs.grad is None or not inputs.grad.isfinite().all():
        yield "loss has no gradient with respect to the policy, or one that is not finite"
    else:
        objective.load_state_dict(state)
        yield from _cut_problems(objective, parts, inputs)
        objective.load_state_dict(state)
        if not objective.holds_constant:
            yield from _difference_problems(objective, remake, inputs)
    if not all(np.isfinite(value) for value in metrics.values()):
        yield "loss returns a figure to log that is NaN or infinite"


def _cut_problems(objective: Any, parts: list[Any], inputs: torch.Tensor) -> Iterator[str]:
    """Look whether the gradient of a batch, in `inputs`, is the mean of those of its parts, by their weights."""
    _survey(objective, parts)
    weights = [float(objective.weight(part)) for part in parts]
    if not all(np.isfinite(weight) and weight >= 0 for weight in weights):
        yield f"weight returns {weights}; it must be a finite number from 0 on"
        return
    expected = inputs.grad.clone()
    inputs.grad = None
    for part, weight in zip(parts, weights, strict=True):
        (objective.loss(part)[0] * weight / (sum(weights) or 1.0)).backward(retain_graph=True)
    if not torch.allclose(inputs.grad, expected, rtol=1e-3, atol=1e-5):
        yield (
            "the loss of a batch is not the mean of its parts' losses by their weights: weight must return what loss "
            "divides by"
        )


def _difference_problems(objective: Any, remake: Callable[[torch.Tensor], Any], inputs: torch.Tensor) -> Iterator[str]:
    """Look whether the gradient is that of the loss, by central differences along random directions."""
    state, random = objective.state_dict(), torch.Generator().manual_seed(1)

    def value(point: torch.Tensor) -> torch.Tensor:
        objective.load_state_dict(state)
        batch = remake(point)
        _survey(objective, [batch])
        return objective.loss(batch)[0]  # type: ignore[no-any-return]

    leaf = inputs.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(leaf), leaf)
    for _ in range(DIRECTIONS):
        direction = torch.randn(inputs.shape, generator=random, dtype=inputs.dtype)
        above, below = (float(value(inputs.detach() + sign * STEP * direction).detach()) for sign in (1, -1))
        expected, found = (above - below) / (2 * STEP), float((gradient * direction).sum())
        if abs(found - expected) > TOLERANCE * max(abs(found), abs(expected)) + FLOOR:
            yield (
                f"the gradient is not that of the loss: along a direction it says {found:.4g}, and the loss changes by "
                f"{expected:.4g}; if a part is held constant on purpose, say `holds_constant = True`"
            )
            return


def _survey(objective: Any, batches: list[Any]) -> None:
    if isinstance(objective, TokenObjective) and objective.needs.survey:
        with torch.no_grad():
            objective.survey(batches)
