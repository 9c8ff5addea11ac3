"""The loss of an update over the micro-batches of all processes, and its gradient: the same however they are cut."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from recalign.api import Objective
from recalign.plugins.registry import blamed, plugin_error
from recalign.training.processes import add_up_gradients, process, scale_gradients, sum_over_processes
from recalign.training.speed import Stopwatch


class Accumulation:
    """Runs backward passes over the micro-batches of an update; `finish` makes their sum the gradient of the whole.

    L = sum_i w_i L_i / sum_i w_i over the micro-batches i of all processes, L_i being the objective's loss and w_i its
    weight. The sum of the weights is known when the last micro-batch is done, so gradients of w_i L_i / u are added up,
    and scaled by u / sum_i w_i at the end, before they are clipped. The unit u is the mean weight of the processes'
    first micro-batches: gradients keep their scale meanwhile, and an update of one batch is left exactly as it is.

    Args:
        model: whose parameters have the gradients.
        averaged: the backward passes average gradients over the processes, as DDP does; else `finish` adds them up.
        watch: charged for the backward passes.

    Attributes:
        add_up: adds up the gradients of all processes, times a scale.
    """

    def __init__(self, model: torch.nn.Module, *, averaged: bool = False, watch: Stopwatch | None = None) -> None:
        self.model, self.averaged, self.watch = model, averaged, watch or Stopwatch()
        self.add_up: Callable[[float], None] = partial(add_up_gradients, model)
        self._unit: float | None = None  # None: no micro-batch of this update was added yet
        self._loss, self._weight = 0.0, 0.0

    def add(self, loss: torch.Tensor, weight: float) -> None:
        """Run the backward pass of a micro-batch; every process adds one or more before it finishes.

        Args:
            loss: scalar, with a graph.
            weight: of the micro-batch, 0 or more.
        """
        if self._unit is None:
            self._unit = sum_over_processes([weight], self._device)[0] / process()[1] or 1.0
        with self.watch.timing("backward"):
            with torch.autocast(loss.device.type, enabled=False):  # gradients take the formats of the forward pass
                (loss * (weight / self._unit)).backward()
            self._loss += weight * loss.item()
        self._weight += weight

    def finish(self) -> torch.Tensor:
        """Scale the gradients to those of the loss over all micro-batches of all processes, and begin the next update.

        Returns:
            That loss; 0 where nothing has a weight.
        """
        assert self._unit is not None, "an update has a micro-batch"
        loss, weight = sum_over_processes([self._loss, self._weight], self._device)
        scale = self._unit / (weight or 1.0)
        if self.averaged:
            scale_gradients(self.model, scale * process()[1])
        else:
            self.add_up(scale)
        self._unit, self._loss, self._weight = None, 0.0, 0.0
        return torch.tensor(loss / (weight or 1.0), device=self._device)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device


def weighed_loss(objective: Objective, batch: Any) -> tuple[torch.Tensor, float, dict[str, float]]:
    """Ask an objective for the loss of a batch, its weight, and figures to log.

    Raises:
        UserError: a third party's objective raises, or returns no scalar with a gradient or no weight; it is named.
    """
    with blamed("objective", objective, "loss"):
        loss, figures = objective.loss(batch)  # type: ignore[attr-defined]
    if loss.shape != () or (torch.is_grad_enabled() and not loss.requires_grad):
        what = "returned no scalar that depends on the log-probabilities in loss"
        raise plugin_error("objective", objective, what)
    with blamed("objective", objective, "weight"), torch.no_grad():
        weight = float(objective.weight(batch))  # type: ignore[attr-defined]
    if not (math.isfinite(weight) and weight >= 0):
        raise plugin_error("objective", objective, f"returned {weight} in weight, which is no finite number from 0 on")
    return loss, weight, figures
