"""DeepSpeed's ZeRO, stages 1 and 2 (Rajbhandari et al., 2020), under recalign's own passes.

DeepSpeed reduces gradients within the backward pass. Rollouts, shared passes and batches by tokens have different
numbers of those in different processes, which would wait for each other for ever. So it is handed gradients when they
are complete: it has parameters of its own, and a loss of them that has these gradients, of one pass in every process.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import distributed, nn

from recalign import console
from recalign.errors import UserError
from recalign.training.processes import process

QUIET = "DeepSpeed"
"""The name of its logger."""


class ZeroShards:
    """The trainable parameters of a model in DeepSpeed's hands; see `Sharding`.

    Args:
        model: its parameters are whole, and the same in all processes, as they stay.
        optimizer: of whole parameters; from now on it steps this process's share of them.
        stage: 1 or 2, which differ in the memory of reduced gradients.

    Raises:
        UserError: the parameters are not float32; DeepSpeed would step copies that are.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, stage: int) -> None:
        dtypes = {parameter.dtype for parameter in model.parameters() if parameter.requires_grad}
        if dtypes != {torch.float32}:
            raise UserError(
                f"DeepSpeed does not bear trained weights of {', '.join(map(str, sorted(dtypes, key=str)))}.",
                "Train float32 weights (--dtype float32), or an adapter (--lora), which has them.",
            )
        self.whole = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.sizes = [len(group["params"]) for group in optimizer.param_groups]
        stand_in = _StandIn(self.whole)
        taken = iter(stand_in.stands)
        for group in optimizer.param_groups:
            group["params"] = [next(taken) for _ in group["params"]]
        self.stands = stand_in.stands
        self.engine = _engine(stand_in, optimizer, stage)
        self.base, self.optimizer = optimizer, _Steps(self.engine, optimizer)
        self.gather()
        console.say(f"{process()[1]} processes share the optimizer's states and steps (DeepSpeed, ZeRO stage {stage}).")

    def gather(self) -> None:
        """See `Sharding`."""
        for parameter, stand in zip(self.whole, self.stands, strict=True):
            parameter.data = stand.data.view(parameter.shape)

    def reduce(self, scale: float) -> None:
        """See `Sharding`."""
        gradients = []
        for parameter in self.whole:
            none = parameter.grad is None
            gradients.append(torch.zeros_like(parameter) if none else parameter.grad)
            parameter.grad = None
        loss = self.engine(gradients, scale * process()[1])  # DeepSpeed takes the mean over processes
        self.engine.backward(loss)

    def clip(self, norm: float) -> torch.Tensor:
        """See `Sharding`; DeepSpeed clips when it steps."""
        zero = self.engine.optimizer
        zero.clip_grad = norm if math.isfinite(norm) else 0.0
        return torch.as_tensor(zero.scaled_global_norm())

    def whole_state(self) -> dict[str, Any]:
        """See `Sharding`."""
        state = self.base.state_dict()
        whole: dict[int, dict[str, Any]] = {}
        for number, shapes in enumerate(self._shapes()):
            values = {name: self._whole(number, value) for name, value in state["state"].get(number, {}).items()}
            for name, value in values.items():
                parts = value.split([shape.numel() for shape in shapes]) if value.dim() else [value] * len(shapes)
                for place, (part, shape) in enumerate(zip(parts, shapes, strict=True), start=self._first(number)):
                    whole.setdefault(place, {})[name] = part.reshape(shape).clone() if value.dim() else part
        groups = [
            {**group, "params": list(range(self._first(number), self._first(number + 1)))}
            for number, group in enumerate(state["param_groups"])
        ]
        return {**state, "state": whole, "param_groups": groups}

    def load_state(self, state: dict[str, Any]) -> None:
        """See `Sharding`."""
        shares: dict[int, dict[str, Any]] = {}
        for number in range(len(self.sizes) if state["state"] else 0):  # SGD has none
            members = [state["state"][place] for place in range(self._first(number), self._first(number + 1))]
            shares[number] = {
                name: value if name == "step" else self._share(number, [each[name] for each in members])
                for name, value in members[0].items()
            }
        groups = [{**group, "params": [number]} for number, group in enumerate(state["param_groups"])]
        self.base.load_state_dict({**state, "state": shares, "param_groups": groups})

    def _first(self, group: int) -> int:
        """Return the number of a group's first parameter, counted over all groups."""
        return sum(self.sizes[:group])

    def _shapes(self) -> list[list[torch.Size]]:
        """Shapes of whole parameters, group by group."""
        shapes = iter(parameter.shape for parameter in self.whole)
        return [[next(shapes) for _ in range(size)] for size in self.sizes]

    def _whole(self, group: int, value: torch.Tensor) -> torch.Tensor:
        """Join all processes' shares of a group's state; what counts steps is the same in all."""
        if value.dim() == 0:
            return value
        shares = [torch.empty_like(value) for _ in range(process()[1])]
        distributed.all_gather(shares, value)
        return torch.cat(shares)[: sum(shape.numel() for shape in self._shapes()[group])].cpu()

    def _share(self, group: int, values: Sequence[torch.Tensor]) -> torch.Tensor:
        """Cut this process's share from the state of a group's parameters."""
        (share,) = self.base.param_groups[group]["params"]
        whole = torch.zeros(share.numel() * process()[1])
        flat = torch.cat([value.reshape(-1).float() for value in values])
        whole[: len(flat)] = flat
        return whole.view(process()[1], -1)[process()[0]].to(share.device)


class _StandIn(nn.Module):
    """Parameters in DeepSpeed's hands, and a loss that has the gradients it is told.

    Args:
        parameters: which it has the values of.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        super().__init__()
        self.stands = [nn.Parameter(each.detach().reshape(each.shape or (1,))) for each in parameters]  # no scalars
        for number, stand in enumerate(self.stands):
            self.register_parameter(str(number), stand)

    def forward(self, gradients: Sequence[torch.Tensor], scale: float) -> torch.Tensor:
        products = [torch.dot(s.reshape(-1), g.reshape(-1)) for s, g in zip(self.stands, gradients, strict=True)]
        return scale * torch.stack(products).sum()


class _Steps(torch.optim.Optimizer):
    """DeepSpeed's step as an optimizer of torch, with the groups and states of the one that steps the shares."""

    def __init__(self, engine: Any, base: torch.optim.Optimizer) -> None:
        self.engine, self.base = engine, base
        self.defaults = base.defaults

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        return self.base.param_groups

    @property
    def state(self) -> Any:  # type: ignore[override]
        return self.base.state

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.engine.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Nothing: DeepSpeed drops gradients when it has stepped."""

    def state_dict(self) -> dict[str, Any]:
        return self.base.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.base.load_state_dict(state_dict)


def _engine(model: nn.Module, optimizer: torch.optim.Optimizer, stage: int) -> Any:
    """Set up DeepSpeed, without its many words."""
    logging.getLogger(QUIET).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import deepspeed

        config = {
            "train_micro_batch_size_per_gpu": 1,
            "zero_optimization": {"stage": stage},
            "zero_allow_untested_optimizer": True,
        }
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config, dist_init_required=False)
    return engine
