"""What a trainer needs to know of an objective: its step, its examples, and how the policy is validated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recalign import console
from recalign.training.processes import process
from recalign.training.trainer import RecalignTrainer, TrainingStep
from recalign.training.validation import Validation

if TYPE_CHECKING:
    from recalign.training.offline.examples import AnswerExamples
    from recalign.training.offline.preference_step import PreferenceExamples
    from recalign.training.training_options import TrainingOptions


@dataclass(frozen=True)
class TrainingSetup:
    """A training on the data's answers, ready to run.

    Args:
        step: computes the loss.
        examples: the training rows, with what the step takes.
        collate: makes a batch of them.
        validation: of the policy that is trained.
    """

    step: TrainingStep
    examples: AnswerExamples | PreferenceExamples
    collate: Callable[[list[Any]], Any]
    validation: Validation

    def trainer(self, training: TrainingOptions, out: Path, title: str) -> RecalignTrainer:
        """Return the trainer that writes to a run folder, and say what an update is made of."""
        console.say(training.batch_line(process()[1]))
        return RecalignTrainer(
            self.validation.engine.policy,
            self.step,
            training,
            out,
            self.examples,
            self.collate,
            self.validation.run,
            length_of=self.examples.length_of,
            title=title,
            before=self.validation.before,
        )
