"""One step's rankings: answers about every candidate, the head's scores of them, orders, rewards, and their credit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import distributed

from recalign.api import INVALID, RankCredit, Rankings, Rationales, Row
from recalign.decoding.random_numbers import random_keys, uniforms
from recalign.objectives.plackett_luce import best_orders, order_logps
from recalign.plugins.registry import blamed, plugin_error
from recalign.tasks.rank import candidates_of
from recalign.training.online.rollouts import score_groups
from recalign.training.processes import process

if TYPE_CHECKING:
    from recalign.api import RankObjective
    from recalign.decoding.engine import PolicyEngine
    from recalign.metrics.expression import MetricExpression

Value = TypeVar("Value")

ORDERS = 0x0D0E5
"""Added to the seed of random numbers, so that orders are drawn with others than answers."""


@dataclass(frozen=True)
class RankingPart:
    """Some of the sets of a rollout.

    Args:
        sets: [B] int64, their numbers, ascending.
        answers: [A] int64, the numbers of their answers, ascending.
        place: [A] int64, where each answer lies in [B, K], flat.
        width: K.
    """

    sets: torch.Tensor
    answers: torch.Tensor
    place: torch.Tensor
    width: int

    def grid(self, values: torch.Tensor) -> torch.Tensor:
        """[A] values of answers, set by set: [B, K], 0 in the padding; gradients flow."""
        empty = values.new_zeros(len(self.sets) * self.width)
        return empty.index_put((self.place.to(values.device),), values).view(len(self.sets), self.width)


@dataclass(frozen=True)
class Sets:
    """The sets of answers to U rows: S = U * G of them, row by row; a set has one answer to each candidate of its row.

    Args:
        rows: U rows.
        items: [U, K] candidates; INVALID in the padding of rows that have fewer.
        group_size: G.
        set_of: [N] int64, which set each answer is in; answers come in the order row, candidate, set.
        column: [N] int64, which of its row's candidates each answer is about.
    """

    rows: Sequence[Row]
    items: torch.Tensor
    group_size: int
    set_of: torch.Tensor
    column: torch.Tensor

    @classmethod
    def of(cls, rows: Sequence[Row], group_size: int) -> Sets:
        """Lay out the candidates of rows, in the order in which `engine.questions` asks about them."""
        candidates = candidates_of(rows)
        counts = np.array([len(each) for each in candidates])
        width = widest(int(counts.max()))
        items = np.full((len(rows), width), INVALID)
        for line, each in zip(items, candidates, strict=True):
            line[: len(each)] = each
        row_of = np.repeat(np.arange(len(rows)), counts * group_size)
        place = np.concatenate([np.arange(count * group_size) for count in counts])
        set_of = row_of * group_size + place % group_size
        layout = (torch.from_numpy(each) for each in (set_of, place // group_size))
        return cls(rows, torch.from_numpy(items), group_size, *layout)

    def __len__(self) -> int:
        return len(self.rows) * self.group_size

    @property
    def present(self) -> torch.Tensor:
        """[U, K] bool, False in the padding."""
        return self.items != INVALID

    @property
    def gains(self) -> torch.Tensor:
        """[U, K] float64, relevance of each candidate."""
        found = torch.zeros(self.items.shape, dtype=torch.float64)
        for row, items, line in zip(self.rows, self.items.numpy(), found, strict=True):
            for target, gain in zip(row.targets, row.gains, strict=True):
                line[torch.from_numpy(items == target)] = float(gain)
        return found

    def spread(self, of_rows: torch.Tensor) -> torch.Tensor:
        """[U, ...] values of rows, for each of their sets: [S, ...]."""
        return of_rows.repeat_interleave(self.group_size, dim=0)

    def part(self, numbers: torch.Tensor | None = None) -> RankingPart:
        """Return some sets (ascending numbers), or all."""
        numbers = torch.arange(len(self)) if numbers is None else numbers
        answers = torch.isin(self.set_of, numbers).nonzero()[:, 0]
        width = self.items.shape[1]
        place = torch.searchsorted(numbers, self.set_of[answers]) * width + self.column[answers]
        return RankingPart(numbers, answers, place, width)

    def noise(self, orders: int, seed: int, step: int) -> torch.Tensor:
        """[S, M, K] uniform numbers in [0, 1), by (seed, step, row, set, order, item) and nothing else."""
        keys = random_keys(seed + ORDERS, step, [row.index for row in self.rows], self.group_size * orders)
        items = self.items.repeat_interleave(self.group_size * orders, dim=0).numpy()
        drawn = uniforms(keys[:, None], np.where(items == INVALID, 0, items))
        return torch.from_numpy(drawn).view(len(self), orders, -1)


@dataclass(frozen=True)
class RankRollout:
    """U rows with G sets of answers each, on one process.

    Args:
        sets: their layout.
        answers: N.
        scores: [S, K] float32 of the head, on the CPU; 0 in the padding.
        orders: [S, M, K] int64.
        advantages: [S, M] float32 of the orders.
        token_advantages: [N, T] float32.
        all_rankings: of every process, as the objective saw them.
        credit: of every process's rankings.
        ranked: [S] float64, reward of each set's order by scores.
    """

    sets: Sets
    answers: Rationales
    scores: torch.Tensor
    orders: torch.Tensor
    advantages: torch.Tensor
    token_advantages: torch.Tensor
    all_rankings: Rankings
    credit: RankCredit
    ranked: torch.Tensor


def make_rankings(
    engine: PolicyEngine,
    rows: Sequence[Row],
    objective: RankObjective,
    expression: MetricExpression,
    *,
    seed: int,
    step: int,
) -> RankRollout:
    """Answer the questions about all candidates of U rows, score them, make orders of the scores and reward those.

    Args:
        engine: bound to the policy.
        rows: U rows with candidates.
        objective: says how answers and orders come about, and what they are worth; its head is at hand.
        expression: the reward, bound to the catalogue.
        seed: of the sampling.
        step: another step samples anew.

    Raises:
        UserError: the reward or the objective misbehaves (the plugin and its package are named).
    """
    needs = objective.needs
    answering = needs.answering
    answers = engine.questions.rationales(
        rows,
        form=answering.form,
        group_size=needs.sets,
        max_tokens=answering.max_tokens,
        temperature=needs.temperature,
        seed=seed,
        epoch=step,
        states=answering.state,
    )
    sets = Sets.of(rows, needs.sets)
    assert torch.equal(answers.items, sets.items[answers.rows, sets.column]), "answers in another order than sets"
    with torch.no_grad():
        scores = sets.part().grid(objective.scores(answers.states)).cpu()  # [S, K]
    present, gains = sets.spread(sets.present), sets.spread(sets.gains)
    noise = sets.noise(needs.orders, seed, step)
    orders = made_orders(objective, scores.double(), gains, noise, present)
    rewards = order_rewards(expression, sets, scores, orders)
    by_score = best_orders(scores, noise[:, :1], present)  # ties are drawn
    shape = (len(rows), needs.sets)
    mine = Rankings(
        scores.double().view(*shape, -1),
        orders.view(*shape, *orders.shape[1:]),
        rewards.view(*shape, -1),
        sets.gains,
        sets.present,
    )
    rankings, here = gather_rankings(mine)
    credit = checked_credit(objective, rankings)
    responses = credit.responses[here]
    responses = responses.reshape(len(sets), -1).expand(-1, sets.items.shape[1])[sets.set_of, sets.column]  # [N]
    written = torch.arange(answers.tokens.shape[1]) < answers.lengths[:, None]
    return RankRollout(
        sets,
        answers,
        scores,
        orders,
        credit.orders[here].reshape(len(sets), -1).float(),
        responses.float()[:, None] * written,
        rankings,
        credit,
        order_rewards(expression, sets, scores, by_score)[:, 0],
    )


def made_orders(
    objective: RankObjective, scores: torch.Tensor, gains: torch.Tensor, noise: torch.Tensor, present: torch.Tensor
) -> torch.Tensor:
    """Ask the objective for orders; whatever it does wrong names the plugin and its package.

    Raises:
        UserError: it raises, or what it returns are no orders of the candidates with padding last.
    """
    with blamed("objective", objective, "orders"):
        orders = objective.orders(scores, gains, noise, present)
    if tuple(orders.shape) != tuple(noise.shape):
        what = f"returned orders of shape {list(orders.shape)} for noise of shape {list(noise.shape)}"
        raise plugin_error("objective", objective, what)
    there = present[:, None].expand(orders.shape).gather(-1, orders)
    if not (orders.sort(dim=-1).values == torch.arange(orders.shape[-1])).all() or (there.int().diff() > 0).any():
        raise plugin_error("objective", objective, "returned what is no order of the candidates with padding last")
    return orders


def order_rewards(expression: MetricExpression, sets: Sets, scores: torch.Tensor, orders: torch.Tensor) -> torch.Tensor:
    """Score orders [S, M, K] as lists: float64 [S, M]."""
    rows, size = len(sets.rows), orders.shape[-1]
    items = sets.spread(sets.items)[:, None].expand(orders.shape).gather(-1, orders)  # [S, M, K]
    logps = order_logps(scores.double(), orders, sets.spread(sets.present)).sum(dim=-1)  # [S, M]
    found = score_groups(
        expression,
        items.view(rows, -1, size).numpy(),
        sets.rows,
        scores=logps.view(rows, -1).numpy(),
        lengths=sets.present.sum(dim=1).numpy(),
    )
    return torch.from_numpy(found).view(len(sets), -1)


def checked_credit(objective: RankObjective, rankings: Rankings) -> RankCredit:
    """Ask the objective for its credit; whatever it does wrong names the plugin and its package.

    Raises:
        UserError: it raises, or its advantages have another shape or are not finite.
    """
    with blamed("objective", objective, "credit"):
        credit = objective.credit(rankings)
    rows, sets, orders, size = rankings.orders.shape
    for name, found, shapes in (
        ("orders", credit.orders, {(rows, sets, orders)}),
        ("responses", credit.responses, {(rows, sets), (rows, sets, size)}),
    ):
        if tuple(found.shape) not in shapes:
            what = f"returned {name} of shape {list(found.shape)} in credit, for {rows} rows of {sets} sets"
            raise plugin_error("objective", objective, what)
        if not torch.isfinite(found).all():
            raise plugin_error("objective", objective, f"returned {name} in credit that are not finite")
    return credit


def widest(size: int) -> int:
    """Return the largest number of all processes."""
    return max(_of_all(size))


def gather_rankings(rankings: Rankings) -> tuple[Rankings, slice]:
    """Bring the rankings of all processes together, in the order of their ranks; also, where this process's are."""
    parts = _of_all(tuple(vars(rankings).values()))
    start = sum(len(part[0]) for part in parts[: process()[0]])
    return Rankings(*map(torch.cat, zip(*parts, strict=True))), slice(start, start + len(rankings.rewards))


def _of_all(value: Value) -> list[Value]:
    """Gather a value from every process."""
    parts = [value] * process()[1]
    if len(parts) > 1:
        distributed.all_gather_object(parts, value)
    return parts
