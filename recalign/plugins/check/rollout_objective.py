"""The trial of rollout objectives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from recalign.api import Groups, PolicyBatch, RolloutObjective
from recalign.plugins.check.examples import GROUPS, ITEMS, REFERENCES, SAMPLES, TOKENS
from recalign.plugins.check.losses import loss_problems


def problems(objective: RolloutObjective) -> Iterator[str]:
    """Try credit and loss on two groups, one of them without variance; yield one line per problem."""
    if objective.needs.ranked and objective.tasks != {"next"}:
        yield f"{type(objective).__name__}.tasks must be {{'next'}}: a beam search finds single titles"
    random = torch.Generator().manual_seed(0)
    rewards = torch.rand(GROUPS, SAMPLES, generator=random, dtype=torch.float64)
    rewards[1] = 0.0  # a group without variance
    length = 1 if objective.needs.ranked else 3
    groups = Groups(
        rewards=rewards,
        reference_rewards=torch.rand(GROUPS, REFERENCES, generator=random, dtype=torch.float64)
        if objective.needs.reference_lists
        else None,
        items=torch.randint(ITEMS, (GROUPS, SAMPLES, length), generator=random),
        scores=-torch.rand(GROUPS, SAMPLES, generator=random, dtype=torch.float64).sort(descending=True).values,
        ranked=objective.needs.ranked,
    )
    advantages = objective.credit(groups).advantages
    if tuple(advantages.shape) not in {(GROUPS, SAMPLES), (GROUPS, SAMPLES, length)}:
        yield f"credit returns advantages of shape {tuple(advantages.shape)} for {GROUPS} groups of {SAMPLES}"
    elif not advantages.isfinite().all():
        yield "credit returns NaN or infinity (one of the two groups has equal rewards)"

    logps = (-torch.rand(GROUPS * SAMPLES, TOKENS, generator=random)).requires_grad_()
    batch = PolicyBatch(
        logps=logps,
        old_logps=logps.detach().clone(),
        reference_logps=logps.detach() - 0.1,
        advantages=torch.linspace(-1, 1, GROUPS * SAMPLES)[:, None].expand(-1, TOKENS),
        mask=torch.arange(TOKENS)[None] < torch.tensor([TOKENS, 2] * (GROUPS * SAMPLES // 2))[:, None],
        groups=torch.arange(GROUPS).repeat_interleave(SAMPLES),
    )

    def part(rows: slice) -> PolicyBatch:
        named = {name: None if value is None else value[rows] for name, value in vars(batch).items()}
        return PolicyBatch(**{**named, "groups": named["groups"] - named["groups"][0]})

    cut = SAMPLES if objective.needs.whole_groups else SAMPLES - 1
    parts = [part(slice(cut)), part(slice(cut, None))]
    yield from loss_problems(objective, batch, parts, logps, lambda inputs: replace(batch, logps=inputs))
