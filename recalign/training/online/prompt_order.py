"""Which prompts each rollout asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recalign.api import UserError

if TYPE_CHECKING:
    from recalign.data.dataset import Rows
    from recalign.metrics.expression import MetricExpression


@dataclass(frozen=True)
class PromptOrder:
    """Which training rows each rollout asks.

    Args:
        indices: [n] rows of the training split.
        per_step: P.
        seed: of the order, which is another permutation every epoch.
        processes: that share a rollout, and each need a prompt of their own.
    """

    indices: np.ndarray
    per_step: int
    seed: int
    processes: int = 1

    @property
    def steps_an_epoch(self) -> int:
        """Rollouts until every prompt was asked once; too few prompts for all processes join those before them."""
        full, rest = divmod(len(self.indices), self.per_step)
        return max(full + (rest >= self.processes), 1)

    def at(self, rollout: int) -> np.ndarray:
        """Return the rows of one rollout: [P] indices, fewer or a few more in the last of an epoch."""
        epoch, place = divmod(rollout, self.steps_an_epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(self.indices)
        end = None if place + 1 == self.steps_an_epoch else (place + 1) * self.per_step
        return order[place * self.per_step : end]

    def asked(self, rollouts: int) -> np.ndarray:
        """Return all rows that the first rollouts ask, ascending."""
        if rollouts >= self.steps_an_epoch:
            return np.sort(self.indices)
        return np.sort(np.concatenate([self.at(rollout) for rollout in range(rollouts)]))


def choose_prompts(rows: Rows, expression: MetricExpression, limit: int | None, seed: int) -> tuple[np.ndarray, int]:
    """Choose training rows for which the reward means something.

    Args:
        rows: the training split.
        expression: the reward.
        limit: how many to take at most, drawn by seed.
        seed: of the draw.

    Returns:
        Indices, ascending, and how many rows were left out on the way because the reward is not defined for them.

    Raises:
        UserError: the reward is defined for no row.
    """
    order = np.arange(len(rows))
    if limit is not None and limit < len(rows):
        order = np.random.default_rng([seed, 1]).permutation(order)
    chosen: list[int] = []
    left_out = 0
    for index in order:
        if not expression.defined_for(rows[int(index)]):
            left_out += 1
            continue
        chosen.append(int(index))
        if len(chosen) == limit:
            break
    if not chosen:
        raise UserError(
            f"The reward {expression.text} is defined for none of the {len(rows)} training rows.",
            "No row has a relevant target: prepare the dataset with another --relevance.",
        )
    return np.sort(np.array(chosen)), left_out
