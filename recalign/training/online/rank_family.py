"""The family of rank objectives: scores of a row's candidates, each read from an answer about it alone."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recalign.api import RankObjective
from recalign.errors import UserError
from recalign.metrics.expression import check_cutoffs
from recalign.models.modules import freeze_language_model
from recalign.models.policy import reference_policy
from recalign.training.family import Family
from recalign.training.online.rank_step import RankStep
from recalign.training.online.rollout_training import RolloutOptions, Schedule, train_on_rollouts

if TYPE_CHECKING:
    from recalign.data.dataset import PreparedDataset
    from recalign.decoding.engine import PolicyEngine
    from recalign.metrics.expression import MetricExpression
    from recalign.training.training_options import TrainingOptions


class RankFamily(Family[RankObjective]):
    """A head's scores, orders made of them, and losses on both; `sft` refuses it."""

    name = "rank"

    def check_reward(self, objective: RankObjective, expression: MetricExpression, dataset: PreparedDataset) -> None:
        """Refuse `@k` beyond the candidates, and a reward that reads the ranks of a beam search."""
        check_cutoffs(expression, dataset.list_length)
        if "ranks" in expression.reads:
            raise UserError(
                f"The reward {expression.text} compares the ranked titles of a beam search; {objective.name} orders "
                "candidates.",
                "Use a reward of lists, such as ndcg@10.",
            )

    def align(
        self,
        engine: PolicyEngine,
        dataset: PreparedDataset,
        objective: RankObjective,
        expression: MetricExpression,
        out: Path,
        training: TrainingOptions,
        options: RolloutOptions,
        *,
        resume: bool = False,
    ) -> dict[str, Any]:
        """Answer, score, order and update; the reward of the order by scores picks the checkpoint.

        Raises:
            UserError: as `Family.align`; the credit compares rows, and an update has one.
        """
        needs = objective.needs
        if needs.compares_rows and min(options.prompts_per_step, options.rows or 2) < 2:
            raise UserError(
                "With one row per update and one set of responses there is nothing that a response is compared with.",
                "Raise --prompts-per-step, or pass -p sets=2 or -p baseline=false.",
            )
        engine.policy.settings["answering"] = asdict(needs.answering)
        if not needs.trains_model:
            freeze_language_model(engine.policy.model)
        schedule = Schedule.of(dataset, expression, options, training)
        step = RankStep(
            engine,
            objective,
            expression,
            dataset.rows("train"),
            schedule.prompts,
            reference_policy(engine.policy) if needs.responses else None,
            updates_per_rollout=options.updates_per_rollout,
            token_budget=options.token_budget,
            kl_every=schedule.training.eval_every,
            seed=training.seed,
        )
        return train_on_rollouts(engine, dataset, step, expression, out, schedule, options, resume=resume)
