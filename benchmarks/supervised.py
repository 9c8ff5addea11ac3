"""A supervised step with MSL or BEAR against one with plain cross-entropy, all ours."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import torch

from recalign.api import Row
from recalign.decoding.engine import PolicyEngine
from recalign.plugins import registry
from recalign.training.accumulation import Accumulation
from recalign.training.offline.examples import AnswerExamples, collate
from recalign.training.offline.token_step import TokenStep
from setting import Setting
from timing import Pairs, alternate


def objective_over_sft(setting: Setting, rows: list[Row], objective: str, *, repeats: int, seconds: float) -> Pairs:
    """Time whole updates on the same batch: `ours` is the objective's, `peer` the one of `sft`.

    Args:
        setting: model and titles.
        rows: one batch.
        objective: `msl` or `bear`.
        repeats: pairs.
        seconds: begin no further pair after this time.
    """
    step, plain = (update(setting, rows, name) for name in (objective, "sft"))
    step(), plain()
    return alternate(step, plain, repeats, seconds)


def update(setting: Setting, rows: list[Row], objective: str) -> Callable[[], None]:
    """Return one update with an objective: batch, forward, backward, optimiser."""
    policy = replace(setting.policy, model=copy.deepcopy(setting.policy.model))
    engine = PolicyEngine(policy, setting.catalogue, exclude_history=False)
    step = TokenStep(policy, registry.create("objective", objective), engine)
    examples = AnswerExamples(policy, rows, 1)
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=1e-6)

    def run() -> None:
        batch = collate([examples[0, index] for index in range(len(rows))], pad=policy.titles.end, all_tokens=False)
        accumulation = Accumulation(policy.model)
        step.accumulate(policy.model, batch, accumulation)
        accumulation.finish()
        torch.nn.utils.clip_grad_norm_(policy.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return run
