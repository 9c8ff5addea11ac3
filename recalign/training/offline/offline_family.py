"""What the families that learn from the data's answers share: `align` trains on rows, and decoded lists validate."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recalign import console
from recalign.api import Row
from recalign.errors import UserError
from recalign.metrics.expression import check_cutoffs
from recalign.tasks import find_task
from recalign.training.family import AnObjective, Family
from recalign.training.processes import process
from recalign.training.rows import drawn_rows, validation_rows
from recalign.training.validation import REWARD, Validation

if TYPE_CHECKING:
    from recalign.data.dataset import PreparedDataset
    from recalign.decoding.engine import PolicyEngine
    from recalign.metrics.expression import MetricExpression
    from recalign.training.online.rollout_training import RolloutOptions
    from recalign.training.training_options import TrainingOptions


class OfflineFamily(Family[AnObjective]):
    """Objectives on the data's answers."""

    def check_reward(self, objective: AnObjective, expression: MetricExpression, dataset: PreparedDataset) -> None:
        """Refuse `@k` beyond the lists that validation decodes."""
        check_cutoffs(expression, find_task(dataset.task).list_size(dataset.list_length))

    def align(
        self,
        engine: PolicyEngine,
        dataset: PreparedDataset,
        objective: AnObjective,
        expression: MetricExpression,
        out: Path,
        training: TrainingOptions,
        options: RolloutOptions,
        *,
        resume: bool = False,
    ) -> dict[str, Any]:
        """Train the engine's policy in place on the data's answers; decoded lists' reward picks the checkpoint."""
        if options.updates_per_rollout != 1:
            raise UserError(
                f"The objective '{objective.name}' makes no rollouts, of which --updates-per-rollout counts the "
                "updates.",
                "Leave it out.",
            )
        rows = drawn_rows(dataset.rows("train"), options.rows, training.seed)
        training = replace(
            training,
            batch_size=max(options.prompts_per_step // process()[1], 1),
            best_metric=REWARD,
            token_budget=options.token_budget,
        )
        valid = validation_rows(engine.policy, dataset.rows("valid"), options.valid_rows)
        validation = Validation(engine, valid, expression, REWARD)
        validation = replace(validation, before=validation.decode())
        start = validation.before.figures[REWARD]
        title = f"{objective.name}, validated by {expression.text}"
        outcome = self.train(objective, validation, rows, out, training, title=title, resume=resume)
        if outcome["best_reward"] is None or outcome["best_reward"] <= start:
            console.warn(
                f"no checkpoint beats the starting policy on validation ({start:.4f}); the best after it is kept."
            )
        return {**outcome, "start_reward": start, "prompts": len(rows)}

    @abstractmethod
    def train(
        self,
        objective: AnObjective,
        validation: Validation,
        rows: Sequence[Row],
        out: Path,
        training: TrainingOptions,
        *,
        title: str,
        resume: bool,
    ) -> dict[str, Any]:
        """Train the policy of `validation` in place; return updates, best_reward and its update, and seconds."""
