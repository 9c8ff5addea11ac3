"""What every family of objectives answers: what it refuses, its defaults, and how it trains in `sft` and `align`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from recalign.api import Objective, Row
from recalign.errors import UserError
from recalign.models.builtin import is_from_scratch

if TYPE_CHECKING:
    from recalign.data.dataset import PreparedDataset
    from recalign.decoding.engine import PolicyEngine
    from recalign.metrics.expression import MetricExpression
    from recalign.training.offline.examples import Augmentation
    from recalign.training.online.rollout_training import RolloutOptions
    from recalign.training.setup import TrainingSetup
    from recalign.training.training_options import TrainingOptions

LossOn = Literal["auto", "response", "all"]
AnObjective = TypeVar("AnObjective", bound=Objective)


@dataclass(frozen=True)
class SupervisedData:
    """What supervised training hands to a family.

    Args:
        engine: bound to the policy that is trained.
        rows: training rows.
        valid: validation rows.
        metric: of decoded lists, or None.
        loss_on: `response`, `all` (the history's tokens too) or `auto`: all for models from scratch with the compact
            template, where it is the denser signal, else response.
        augmentation: how rows vary from epoch to epoch.
        valid_answers: rows whose answers the validation losses are of; None: the validation rows.
    """

    engine: PolicyEngine
    rows: Sequence[Row]
    valid: Sequence[Row]
    metric: MetricExpression | None
    loss_on: LossOn
    augmentation: Augmentation
    valid_answers: Sequence[Row] | None = None


class Family(ABC, Generic[AnObjective]):
    """How the objectives of one family are trained. `training.families` holds them all.

    Attributes:
        name: the family's, as in `Objective.family`.
        starts_supervised: whether training starts from a model that can recommend already.
    """

    name: ClassVar[str]
    starts_supervised: ClassVar[bool] = False

    def check(self, objective: AnObjective, dataset: PreparedDataset, model: str) -> None:
        """Refuse an objective that does not fit the dataset's task or the starting model.

        Raises:
            UserError: it is for another task, or it needs a supervised model.
        """
        if dataset.task not in objective.tasks:
            raise UserError(
                f"The objective '{objective.name}' is for the task {' or '.join(sorted(objective.tasks))}; this "
                f"dataset is prepared for '{dataset.task}'.",
                "Choose another objective, or prepare the dataset with another --task.",
            )
        if self.starts_supervised and is_from_scratch(model):
            raise UserError(
                f"The objective '{objective.name}' starts from a supervised model; {model} knows nothing yet.",
                "Train one with recalign sft, then pass its run folder with --model.",
            )

    def check_supervised(self, objective: AnObjective, loss_on: LossOn) -> None:
        """Refuse an objective that `sft` cannot train, or not on these tokens.

        Raises:
            UserError: it learns from more than the data, or from responses only.
        """
        raise UserError(
            f"The objective '{objective.name}' learns from sampled lists, not from the data.",
            f"Use recalign align --objective {objective.name}.",
        )

    def check_rationales(self, objective: AnObjective) -> None:
        """Refuse an objective that learns nothing from rationales.

        Raises:
            UserError: it does not.
        """
        raise UserError(
            f"The objective '{objective.name}' learns nothing from rationales.",
            "Leave --rationales out, or train with --objective sft.",
        )

    def best_metric(self, objective: AnObjective, wanted: str, *, measured: bool) -> str:
        """Return the validation figure that picks the checkpoint of `sft`.

        Args:
            objective: that is trained.
            wanted: `auto`, or a figure's name.
            measured: whether a metric of decoded lists is measured.

        Raises:
            UserError: there is no such figure.
        """
        raise NotImplementedError

    def supervised(self, objective: AnObjective, data: SupervisedData, training: TrainingOptions) -> TrainingSetup:
        """Set up supervised training on the data's answers.

        Raises:
            UserError: the data do not fit the objective.
        """
        raise NotImplementedError

    def training_defaults(
        self, objective: AnObjective, training: TrainingOptions, max_steps: int, epochs: float
    ) -> TrainingOptions:
        """Fill in how long `align` trains, where the user does not say.

        Args:
            objective: that is trained.
            training: as the user says; 0 updates and 0 epochs: not at all.
            max_steps: default number of updates; 0: by epochs.
            epochs: default number of epochs.

        Raises:
            UserError: a number that means nothing to the objective.
        """
        if training.max_steps or training.epochs:
            return training
        return replace(training, max_steps=max_steps, epochs=epochs)

    @abstractmethod
    def check_reward(self, objective: AnObjective, expression: MetricExpression, dataset: PreparedDataset) -> None:
        """Refuse a reward that does not fit the lists that it will see in `align`.

        Raises:
            UserError: `@k` beyond the lists; ranks where there are none.
        """

    @abstractmethod
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
        """Align the engine's policy in place; checkpoints and `log.jsonl` are written to the run folder.

        Args:
            engine: the starting policy, trainable.
            dataset: prompts and targets.
            objective: what is optimised.
            expression: the reward, bound to the dataset's catalogue.
            out: the run folder.
            training: learning rate, updates or epochs, validation; batch size and best metric are the family's own.
            options: prompts (or rows) per update, and how rollouts are made.
            resume: go on from the newest checkpoint.

        Returns:
            What run.json records: updates, validation before and best, seconds, and the family's own figures.

        Raises:
            UserError: an option that does not fit the objective; the reward or the objective misbehaves.
            KeyboardInterrupt: after Ctrl-C, when the present update is done and a checkpoint is saved.
        """


def responses_only(objective: Objective) -> UserError:
    """Return the error of an objective that is asked to learn the tokens of prompts."""
    return UserError(
        f"The objective '{objective.name}' is defined on responses only.", "Leave --loss-on out, or say response."
    )
