"""The trial of preference objectives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from recalign.api import PreferenceBatch, PreferenceObjective
from recalign.plugins.check.examples import GROUPS, SAMPLES, TOKENS
from recalign.plugins.check.losses import loss_problems


def problems(objective: PreferenceObjective) -> Iterator[str]:
    """Try the loss on rows with all, few and no rejected titles; yield one line per problem."""
    random = torch.Generator().manual_seed(0)
    shape = (GROUPS + 1, 1 + SAMPLES, TOKENS)
    choices = torch.rand(shape, generator=random) > 0.3
    token_logps = -torch.rand(shape, generator=random).masked_fill(~choices, 0.0)
    token_logps.requires_grad_()
    present = torch.ones(shape[:2], dtype=torch.bool)
    present[1, 2:] = present[2, 1:] = False  # a row with fewer rejected titles, and one without any
    batch = PreferenceBatch(
        logps=token_logps.sum(dim=2),
        reference_logps=token_logps.detach().sum(dim=2) + 0.1 * torch.randn(shape[:2], generator=random),
        present=present,
        token_logps=token_logps,
        thresholds=-torch.rand(shape, generator=random) if objective.needs.threshold_rank else None,
        choices=choices,
    )

    def part(rows: slice) -> PreferenceBatch:
        return PreferenceBatch(**{name: None if value is None else value[rows] for name, value in vars(batch).items()})

    def remake(inputs: torch.Tensor) -> PreferenceBatch:
        return replace(batch, logps=inputs.sum(dim=2), token_logps=inputs)

    yield from loss_problems(objective, batch, [part(slice(1)), part(slice(1, None))], token_logps, remake)
