"""What is learnt from the data's answers, and how it is checked: a token or preference objective around a policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from recalign.api import Objective, PreferenceObjective, Row, TokenObjective
from recalign.errors import UserError
from recalign.models.policy import is_builtin, reference_policy
from recalign.objectives.sft import Sft
from recalign.training.offline.examples import AnswerExamples, Augmentation, collate
from recalign.training.offline.negatives import Negatives, Rejected
from recalign.training.offline.preference_step import PreferenceExamples, PreferenceStep
from recalign.training.offline.token_step import TokenStep
from recalign.training.trainer import RecalignTrainer, Step
from recalign.training.validation import validation_loss, validation_metric

if TYPE_CHECKING:
    from recalign.data.dataset import PreparedDataset
    from recalign.decoding.engine import Engine
    from recalign.metrics.expression import RewardExpression
    from recalign.training.training_options import TrainingOptions

LossOn = Literal["auto", "response", "all"]
DataObjective = TokenObjective | PreferenceObjective


@dataclass(frozen=True)
class Check:
    """How a policy is validated.

    Args:
        engine: bound to the policy.
        rows: validation rows.
        metric: of decoded lists, or None.
        name: of the metric's figure.
        objective: whose loss on the rows is a figure too, or None.
    """

    engine: Engine
    rows: Sequence[Row]
    metric: RewardExpression | None = None
    name: str = "metric"
    objective: TokenObjective | None = None

    def figures(self) -> dict[str, float]:
        """Return the objective's `loss`, the answers' `cross_entropy` over the whole vocabulary, and the metric."""
        step = TokenStep(self.engine.policy, self.objective or Sft(), self.engine)
        loss, cross_entropy = validation_loss(step, self.rows)
        found = {} if self.objective is None else {"loss": loss}
        found["cross_entropy"] = cross_entropy
        return found if self.metric is None else {**found, self.name: self.score()}

    def score(self) -> float:
        """Return the metric."""
        assert self.metric is not None
        return validation_metric(self.engine, self.metric, self.rows)


@dataclass(frozen=True)
class Lesson:
    """What a trainer needs to know of an objective.

    Args:
        step: the loss.
        examples: the training rows, with what the step takes.
        collate: makes a batch of them.
        check: validation.
    """

    step: Step
    examples: AnswerExamples | PreferenceExamples
    collate: Callable[[list[Any]], Any]
    check: Check

    def trainer(self, training: TrainingOptions, out: Path, title: str) -> RecalignTrainer:
        """Return the trainer that learns this lesson into a run folder."""
        return RecalignTrainer(
            self.check.engine.policy,
            self.step,
            training,
            out,
            self.examples,
            self.collate,
            self.check.figures,
            length_of=self.examples.length_of,
            title=title,
        )


def token_lesson(
    objective: TokenObjective,
    check: Check,
    rows: Sequence[Row],
    *,
    loss_on: LossOn = "auto",
    augmentation: Augmentation | None = None,
) -> Lesson:
    """Learn the answers of some rows by a token objective.

    Args:
        objective: the loss.
        check: validation, and the engine of the policy.
        rows: training rows.
        loss_on: `response`, `all` (the history's tokens too) or `auto`: all for models from scratch with the compact
            template, where it is the denser signal, else response.
        augmentation: how rows vary from epoch to epoch.
    """
    engine = check.engine
    policy = engine.policy
    dense = policy.from_scratch and policy.prompter.template.source is None and not objective.responses_only
    all_tokens = dense if loss_on == "auto" else loss_on == "all"
    examples = AnswerExamples(policy, rows, policy.prompter.list_length, augmentation=augmentation)
    together = partial(collate, pad=policy.titles.end, all_tokens=all_tokens)
    return Lesson(TokenStep(policy, objective, engine), examples, together, check)


def preference_lesson(
    objective: PreferenceObjective,
    check: Check,
    rows: Sequence[Row],
    *,
    seed: int,
    batch_size: int | None = None,
    negatives: Negatives | Rejected | None = None,
) -> Lesson:
    """Learn to prefer the targets of some rows; the policy as it is now is the reference.

    Args:
        objective: the loss.
        check: validation, and the engine of the policy.
        rows: training rows.
        seed: of the negatives.
        batch_size: rows that a process takes at a time, as far as that is known.
        negatives: where rejected titles come from, if not from where the objective's parameters say.

    Raises:
        UserError: fewer items than negatives: in the catalogue, in a batch, or left to some row.
    """
    engine = check.engine
    policy = engine.policy
    if negatives is None:
        params = objective.params
        negatives = Negatives(engine, params.source, params.negatives, seed, batch_size)
        negatives.check(rows)
    step = PreferenceStep(policy, objective, engine, reference_policy(policy), negatives)
    examples = PreferenceExamples(AnswerExamples(policy, rows, policy.prompter.list_length))
    return Lesson(step, examples, list, check)


def check_objective(objective: Objective, dataset: PreparedDataset, model: str) -> None:
    """Refuse an objective that does not fit the dataset's task or the starting model.

    Raises:
        UserError: it is for another task, or it needs a supervised model.
    """
    if dataset.task not in objective.tasks:
        raise UserError(
            f"The objective '{objective.name}' is for the task {' or '.join(sorted(objective.tasks))}; this dataset "
            f"is prepared for '{dataset.task}'.",
            "Choose another objective, or prepare the dataset with another --task.",
        )
    if isinstance(objective, PreferenceObjective) and is_builtin(model):
        raise UserError(
            f"The objective '{objective.name}' starts from a supervised model; {model} knows nothing yet.",
            "Train one with recalign sft, then pass its run folder with --model.",
        )
