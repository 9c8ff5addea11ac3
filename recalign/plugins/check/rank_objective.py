"""The trial of rank objectives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from recalign.api import PolicyBatch, RankBatch, Rankings, RankObjective
from recalign.plugins.check.examples import GROUPS, HIDDEN, ITEMS, TOKENS
from recalign.plugins.check.losses import loss_problems

ABSENT = 2
"""Candidates that the last row lacks."""


def problems(objective: RankObjective) -> Iterator[str]:
    """Try orders, credit and loss on two rows, one of which has fewer candidates; yield one line per problem."""
    needs, random = objective.needs, torch.Generator().manual_seed(0)
    states = torch.randn(GROUPS * needs.sets, ITEMS, HIDDEN, generator=random)
    gains = torch.zeros(GROUPS * needs.sets, ITEMS, dtype=torch.float64)
    gains[:, 1] = 1.0
    present = torch.ones(GROUPS * needs.sets, ITEMS, dtype=torch.bool)
    present[-needs.sets :, -ABSENT:] = False
    scores = torch.randn(present.shape, generator=random, dtype=torch.float64)
    noise = torch.rand(len(scores), needs.orders, ITEMS, generator=random, dtype=torch.float64)
    orders = objective.orders(scores, gains, noise, present)
    if tuple(orders.shape) != tuple(noise.shape) or not (orders.sort(dim=-1).values == torch.arange(ITEMS)).all():
        yield f"orders returns no {needs.orders} orders of {ITEMS} candidates for each of {len(scores)} sets"
        return
    if (orders[-needs.sets :, :, -ABSENT:] < ITEMS - ABSENT).any():
        yield "orders does not put padding last"
    yield from _credit_problems(objective, scores, orders, gains, present)

    logps = (-torch.rand(int(present.sum()), TOKENS, generator=random)).requires_grad_()
    inputs = torch.cat([states.flatten(), logps.detach().flatten()]).requires_grad_()
    batch = _batch(objective, inputs, states.shape, orders, gains, present)
    first = slice(0, needs.sets)
    parts = [_part(batch, first), _part(batch, slice(needs.sets, None))]

    def remake(point: torch.Tensor) -> RankBatch:
        moved = _batch(objective, point, states.shape, orders, gains, present)
        moved = replace(moved, old_scores=batch.old_scores)
        if moved.responses is None or batch.responses is None:
            return moved
        return replace(moved, responses=replace(batch.responses, logps=moved.responses.logps))

    yield from loss_problems(objective, batch, parts, inputs, remake)


def _credit_problems(
    objective: RankObjective,
    scores: torch.Tensor,
    orders: torch.Tensor,
    gains: torch.Tensor,
    present: torch.Tensor,
) -> Iterator[str]:
    shape = (GROUPS, objective.needs.sets)
    rewards = torch.rand(*shape, orders.shape[1], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rewards[1] = 0.5  # a row whose orders are all worth the same
    several = (part.view(*shape, *part.shape[1:]) for part in (scores, orders))
    of_rows = (part.view(*shape, -1)[:, 0] for part in (gains, present))
    scores, orders = several
    gains, present = of_rows
    credit = objective.credit(Rankings(scores, orders, rewards, gains, present))
    if tuple(credit.orders.shape) != tuple(rewards.shape):
        yield f"credit returns {list(credit.orders.shape)} for orders of shape {list(rewards.shape)}"
    if tuple(credit.responses.shape) not in {shape, (*shape, ITEMS)}:
        yield f"credit returns {list(credit.responses.shape)} for {GROUPS} rows of {objective.needs.sets} sets"
    if not (credit.orders.isfinite().all() and credit.responses.isfinite().all()):
        yield "credit returns NaN or infinity (one of the two rows has equal rewards)"


def _batch(
    objective: RankObjective,
    inputs: torch.Tensor,
    shape: torch.Size,
    orders: torch.Tensor,
    gains: torch.Tensor,
    present: torch.Tensor,
) -> RankBatch:
    """Make a batch whose scores and log-probabilities are made of one tensor."""
    states, logps = inputs.split([shape.numel(), inputs.numel() - shape.numel()])
    head = next(iter(objective.modules.values()), lambda hidden: hidden.sum(dim=-1, keepdim=True))
    scores = head(states.view(shape))[..., 0] + 0.1 * states.view(shape)[..., 0]  # a head may begin with zeros
    logps = logps.view(-1, TOKENS)
    responses = PolicyBatch(
        logps=logps,
        old_logps=logps.detach().clone(),
        reference_logps=logps.detach() - 0.1,
        advantages=torch.linspace(-1, 1, len(logps))[:, None].expand(-1, TOKENS),
        mask=torch.ones_like(logps, dtype=torch.bool),
        groups=torch.arange(len(present)).repeat_interleave(present.sum(dim=1)),
    )
    return RankBatch(
        scores=scores,
        orders=orders,
        old_scores=scores.detach().clone(),
        advantages=torch.linspace(-1, 1, orders.shape[0] * orders.shape[1]).view(orders.shape[:2]),
        gains=gains,
        present=present,
        responses=responses if objective.needs.responses else None,
    )


def _part(batch: RankBatch, sets: slice) -> RankBatch:
    named = {name: value[sets] for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    if batch.responses is None:
        return RankBatch(**named)
    count = batch.present.sum(dim=1).cumsum(dim=0)
    begin = 0 if not sets.start else int(count[sets.start - 1])
    rows = slice(begin, int(count[sets][-1]))
    cut = {name: value[rows] for name, value in vars(batch.responses).items()}
    return RankBatch(**named, responses=replace(PolicyBatch(**cut), groups=cut["groups"] - cut["groups"][0]))
