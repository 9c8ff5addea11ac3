"""Sharded training: every process steps its share of the weights, with its share of the optimizer's states.

Differs from FSDP as it is mostly used: the weights of all layers are gathered at once, and stay whole but for the
optimizer's step. Rollouts, beam searches and shared passes run different numbers of forward passes in different
processes; gathering layer by layer, all of them would have to wait for each other in every one of those.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, distribute_tensor

from recalign import console
from recalign.training.launch import Engine, zero_stage
from recalign.training.processes import process


class Sharding(Protocol):
    """What the trainer asks of those who share weights' steps and the optimizer's states among processes.

    Attributes:
        optimizer: what the trainer steps in place of the optimizer of whole weights.
    """

    optimizer: torch.optim.Optimizer

    def gather(self) -> None:
        """Make the model's parameters whole, as the optimizer left them."""

    def reduce(self, scale: float) -> None:
        """Add up the gradients of all processes, times a scale; each process keeps its share of the sums."""

    def clip(self, norm: float) -> torch.Tensor:
        """Scale the gradients down to a norm of all of them, now or at the step; return what it was."""

    def whole_state(self) -> dict[str, Any]:
        """Return the optimizer's state as one process would have it; all processes ask for it together."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Take this process's share of an optimizer's state as one process has it."""


def shared_out(engine: Engine, model: nn.Module, optimizer: torch.optim.Optimizer) -> Sharding:
    """Share a model's training out among the processes."""
    if engine == "FSDP":
        return Shards(model, optimizer)
    from recalign.training.zero import ZeroShards

    return ZeroShards(model, optimizer, zero_stage())


class _Unit(nn.Module):
    """Parameters of one dtype, which FSDP shards and gathers together; it is never run."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__()
        for number, parameter in enumerate(parameters):
            whole = parameter.detach().reshape(parameter.shape or (1,))  # FSDP takes no scalars
            self.register_parameter(str(number), nn.Parameter(whole))


class Shards:
    """The trainable parameters of a model, of which every process keeps and steps a share.

    Args:
        model: its parameters are whole, and the same in all processes; from now on they are whole between `gather` and
            `reduce`, and while the optimizer steps nobody may read them.
        optimizer: of whole parameters; from now on it steps shares of them.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        by_dtype: dict[torch.dtype, list[nn.Parameter]] = defaultdict(list)
        for parameter in model.parameters():
            if parameter.requires_grad:
                by_dtype[parameter.dtype].append(parameter)
        mesh = init_device_mesh(next(model.parameters()).device.type, (process()[1],))
        self.units: list[Any] = [fully_shard(_Unit(group), mesh=mesh) for group in by_dtype.values()]
        self.whole = [parameter for group in by_dtype.values() for parameter in group]
        self.shards = self._parameters()
        of = {id(parameter): shard for parameter, shard in zip(self.whole, self.shards, strict=True)}
        for group in optimizer.param_groups:
            group["params"] = [of[id(parameter)] for parameter in group["params"]]
        self.optimizer = optimizer
        self.gather()
        console.say(
            f"{process()[1]} processes share the optimizer's states and steps (FSDP); weights are whole in each while "
            "it computes."
        )

    def gather(self) -> None:
        """See `Sharding`."""
        for shard in self.shards:
            shard.grad = None
        for unit in self.units:
            unit.unshard()
        for parameter, whole in zip(self.whole, self._parameters(), strict=True):
            parameter.data = whole.detach().view(parameter.shape)

    def reduce(self, scale: float) -> None:
        """See `Sharding`."""
        for unit in self.units:
            unit.reshard()
        for parameter, shard in zip(self.whole, self.shards, strict=True):
            assert isinstance(shard, DTensor)
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parts = DTensor.from_local(gradient.reshape(shard.shape), shard.device_mesh, [Partial()], run_check=False)
            shard.grad = parts.redistribute(placements=shard.placements) * scale
            parameter.grad = None

    def clip(self, norm: float) -> torch.Tensor:
        """See `Sharding`."""
        before = nn.utils.clip_grad_norm_(self.shards, norm)
        return before.full_tensor() if isinstance(before, DTensor) else before

    def whole_state(self) -> dict[str, Any]:
        """See `Sharding`."""
        state, shapes = self.optimizer.state_dict(), self._shapes()
        return {
            **state,
            "state": {
                number: {
                    name: value.full_tensor().reshape(shapes[number][0]).cpu() if isinstance(value, DTensor) else value
                    for name, value in values.items()
                }
                for number, values in state["state"].items()
            },
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """See `Sharding`."""
        shapes = self._shapes()

        def share(number: int, value: Any) -> Any:
            whole, shard = shapes[number]
            if not isinstance(value, torch.Tensor) or value.shape != whole:
                return value
            value = value.to(shard.device).reshape(shard.shape)
            return distribute_tensor(value, shard.device_mesh, shard.placements, src_data_rank=None)

        shares = {
            number: {name: value if name == "step" else share(number, value) for name, value in values.items()}
            for number, values in state["state"].items()
        }
        self.optimizer.load_state_dict({**state, "state": shares})

    def _shapes(self) -> list[tuple[torch.Size, DTensor]]:
        """Shape of each whole parameter, and its shard, in the optimizer's order."""
        shapes = {id(shard): parameter.shape for parameter, shard in zip(self.whole, self.shards, strict=True)}
        return [(shapes[id(each)], each) for group in self.optimizer.param_groups for each in group["params"]]

    def _parameters(self) -> list[nn.Parameter]:
        """Parameters as the units have them now: shards, or whole."""
        return [parameter for unit in self.units for parameter in unit.parameters()]


class Unwrapped(nn.Module):
    """A model that nothing wraps, in the place of transformers' DistributedDataParallel: gradients stay where they are.

    Args:
        model: that is run.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.module = model

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """Run the model."""
        return self.module(*arguments, **options)
