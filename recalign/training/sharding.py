"""Sharded training: every process steps its share of the weights, with its share of the optimizer's states.

Differs from FSDP as it is mostly used: the weights of all layers are gathered at once, and stay whole but for the
optimizer's step. Rollouts, beam searches and shared passes run different numbers of forward passes in different
processes; gathering layer by layer, all of them would have to wait for each other in every one of those.
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, distribute_tensor

from recalign import console
from recalign.errors import UserError
from recalign.models.hardware import Hardware
from recalign.training.processes import process
from recalign.training.training_options import TrainingOptions

SHARDED = "ACCELERATE_USE_FSDP"
"""What accelerate's launcher sets for `distributed_type: FSDP`."""
OPTIMIZERS = {"adamw_torch", "adamw_torch_fused", "sgd"}
"""Those that step a share of a matrix as they would step the whole."""
OTHER_ENGINES = {"ACCELERATE_USE_DEEPSPEED": "DeepSpeed", "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM"}
BORNE: dict[str, tuple[tuple[str, ...], str, str]] = {
    "FSDP_VERSION": (("2",), "fsdp_version", "Write fsdp_version: 2."),
    "FSDP_OFFLOAD_PARAMS": (
        ("false", "none", ""),
        "fsdp_offload_params",
        "Write fsdp_offload_params: false; --gradient-checkpointing and --token-budget save memory.",
    ),
    "FSDP_ACTIVATION_CHECKPOINTING": (
        ("false", ""),
        "fsdp_activation_checkpointing",
        "Write fsdp_activation_checkpointing: false, and pass --gradient-checkpointing.",
    ),
    "FSDP_CPU_RAM_EFFICIENT_LOADING": (
        ("false", ""),
        "fsdp_cpu_ram_efficient_loading",
        "Write fsdp_cpu_ram_efficient_loading: false: every process reads the weights.",
    ),
    "FSDP_STATE_DICT_TYPE": (
        ("full_state_dict", ""),
        "fsdp_state_dict_type",
        "Write fsdp_state_dict_type: FULL_STATE_DICT: a checkpoint holds whole weights, whoever wrote it.",
    ),
}
"""Environment variable of accelerate's launcher -> the values that training bears, its name in the file, what to do."""


def sharded() -> bool:
    """Whether several processes are to share weights and optimizer states."""
    return os.environ.get(SHARDED, "").lower() == "true" and process()[1] > 1


@contextlib.contextmanager
def on_our_own() -> Iterator[None]:
    """Let transformers and accelerate not see that FSDP is asked for: they would wrap the model, layer by layer."""
    before = os.environ.pop(SHARDED, None)
    try:
        yield
    finally:
        if before is not None:
            os.environ[SHARDED] = before


def check_launch(training: TrainingOptions, hardware: Hardware) -> None:
    """Refuse what accelerate's launcher was asked for and training does not bear.

    Raises:
        UserError: another engine; an option of FSDP that would change what is computed, or would be ignored.
    """
    example = "recipes/accelerate/fsdp.yaml has what works."
    for variable, engine in OTHER_ENGINES.items():
        if os.environ.get(variable, "").lower() == "true":
            raise UserError(
                f"accelerate was asked for {engine}, which runs backward passes of its own.",
                f"Use distributed_type: FSDP, which shards the same, or MULTI_GPU; {example}",
            )
    if os.environ.get(SHARDED, "").lower() != "true":
        return
    for variable, (borne, name, hint) in BORNE.items():
        value = os.environ.get(variable, "")
        if (value or ("1" if variable == "FSDP_VERSION" else "")).lower() not in borne:
            raise UserError(f"FSDP does not bear {name}: {value or 1} here.", f"{hint} {example}")
    if training.optim not in OPTIMIZERS:
        raise UserError(
            f"FSDP does not bear --optim {training.optim}, which looks at whole matrices.",
            f"Choose one of {', '.join(sorted(OPTIMIZERS))}.",
        )
    if hardware.quantization is not None:
        raise UserError(
            "FSDP does not bear --load-in-4bit or --load-in-8bit: an adapter's states are small.",
            "Use distributed_type: MULTI_GPU (recipes/accelerate/ddp.yaml).",
        )


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
    """

    def __init__(self, model: nn.Module) -> None:
        by_dtype: dict[torch.dtype, list[nn.Parameter]] = defaultdict(list)
        for parameter in model.parameters():
            if parameter.requires_grad:
                by_dtype[parameter.dtype].append(parameter)
        mesh = init_device_mesh(next(model.parameters()).device.type, (process()[1],))
        self.units: list[Any] = [fully_shard(_Unit(group), mesh=mesh) for group in by_dtype.values()]
        self.whole = [parameter for group in by_dtype.values() for parameter in group]
        self.shards = self._parameters()
        self._of = {id(parameter): shard for parameter, shard in zip(self.whole, self.shards, strict=True)}
        self.gather()
        console.say(
            f"{process()[1]} processes share the optimizer's states and steps (FSDP); weights are whole in each while "
            "it computes."
        )

    def of(self, parameter: nn.Parameter) -> nn.Parameter:
        """Return what the optimizer steps in place of a parameter."""
        return self._of[id(parameter)]

    def gather(self) -> None:
        """Make the model's parameters whole, as the optimizer left them."""
        for shard in self.shards:
            shard.grad = None
        for unit in self.units:
            unit.unshard()
        for parameter, whole in zip(self.whole, self._parameters(), strict=True):
            parameter.data = whole.detach().view(parameter.shape)

    def reduce(self) -> list[nn.Parameter]:
        """Add up the gradients of all processes; each keeps its share of the sums.

        Returns:
            The shards, with gradients, for the optimizer to step.
        """
        for unit in self.units:
            unit.reshard()
        for parameter, shard in zip(self.whole, self.shards, strict=True):
            assert isinstance(shard, DTensor)
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parts = DTensor.from_local(gradient.reshape(shard.shape), shard.device_mesh, [Partial()], run_check=False)
            shard.grad = parts.redistribute(placements=shard.placements)
            parameter.grad = None
        return self.shards

    def clip(self, norm: float) -> torch.Tensor:
        """Scale the shards' gradients down to a norm of all of them; return what it was."""
        before = nn.utils.clip_grad_norm_(self.shards, norm)
        return before.full_tensor() if isinstance(before, DTensor) else before

    def whole_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Return the optimizer's state as one process would have it; all processes ask for it together."""
        state = optimizer.state_dict()
        shapes = self._shapes(optimizer)
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

    def shard_state(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        """Cut an optimizer's state, as one process has it, into shares; return this process's."""
        shapes = self._shapes(optimizer)

        def share(number: int, value: Any) -> Any:
            whole, shard = shapes[number]
            if not isinstance(value, torch.Tensor) or value.shape != whole:
                return value
            value = value.to(shard.device).reshape(shard.shape)
            return distribute_tensor(value, shard.device_mesh, shard.placements, src_data_rank=None)

        return {
            **state,
            "state": {
                number: {name: value if name == "step" else share(number, value) for name, value in values.items()}
                for number, values in state["state"].items()
            },
        }

    def _shapes(self, optimizer: torch.optim.Optimizer) -> list[tuple[torch.Size, DTensor]]:
        """Shape of each whole parameter, and its shard, in the optimizer's order."""
        shapes = {id(shard): parameter.shape for parameter, shard in zip(self.whole, self.shards, strict=True)}
        return [(shapes[id(each)], each) for group in optimizer.param_groups for each in group["params"]]

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
