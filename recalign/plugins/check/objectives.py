"""The trial of objectives: their state, and what their family has to hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from recalign.api import Objective
from recalign.plugins.check import preference_objective, rank_objective, rollout_objective, token_objective
from recalign.plugins.check.examples import HIDDEN

FAMILIES: dict[str, Callable[[Any], Iterator[str]]] = {
    "token": token_objective.problems,
    "preference": preference_objective.problems,
    "rollout": rollout_objective.problems,
    "rank": rank_objective.problems,
}


def problems(objective: Objective) -> Iterator[str]:
    """Save and restore its state as JSON, then try it as its family does; yield one line per problem."""
    objective.load_state_dict(json.loads(json.dumps(objective.state_dict())))
    objective.modules = {name: make(HIDDEN) for name, make in objective.module_makers.items()}
    yield from FAMILIES[objective.family](objective)
    for name, module in objective.modules.items():
        gradients = [parameter.grad for parameter in module.parameters()]
        if gradients and all(gradient is None for gradient in gradients):
            yield f"the module '{name}' gets no gradient from the loss"
