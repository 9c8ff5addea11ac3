"""The family of rollout objectives: credit and losses for the policy's own completions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recalign.api import RolloutObjective
from recalign.errors import UserError
from recalign.metrics.expression import check_cutoffs
from recalign.training.family import Family
from recalign.training.online.rollout_training import RolloutOptions, align_policy

if TYPE_CHECKING:
    from recalign.data.dataset import PreparedDataset
    from recalign.decoding.engine import PolicyEngine
    from recalign.metrics.expression import MetricExpression
    from recalign.training.training_options import TrainingOptions


class RolloutFamily(Family[RolloutObjective]):
    """Credit and losses for the policy's own completions; `sft` refuses it."""

    name = "rollout"

    def check_reward(self, objective: RolloutObjective, expression: MetricExpression, dataset: PreparedDataset) -> None:
        """Refuse `@k` beyond the lists that are sampled, and a reward that reads ranks where there are none."""
        check_cutoffs(expression, dataset.list_length)
        if "ranks" in expression.reads and not objective.needs.ranked:
            raise UserError(
                f"The reward {expression.text} compares the ranked titles of a beam search; {objective.name} samples.",
                "Use --objective rere, or a reward such as ndcg.",
            )

    def align(
        self,
        engine: PolicyEngine,
        dataset: PreparedDataset,
        objective: RolloutObjective,
        expression: MetricExpression,
        out: Path,
        training: TrainingOptions,
        options: RolloutOptions,
        *,
        resume: bool = False,
    ) -> dict[str, Any]:
        """Roll out, credit and update; the reward of decoded lists picks the checkpoint."""
        return align_policy(engine, dataset, objective, expression, out, training, options, resume=resume)
