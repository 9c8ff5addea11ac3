"""The family of token objectives: losses on the tokens of the data's answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recalign.api import Row, TokenObjective
from recalign.training.family import LossOn, SupervisedData, responses_only
from recalign.training.offline.offline_family import OfflineFamily
from recalign.training.offline.setups import token_setup
from recalign.training.setup import TrainingSetup
from recalign.training.validation import Validation

if TYPE_CHECKING:
    from recalign.training.training_options import TrainingOptions


class TokenFamily(OfflineFamily[TokenObjective]):
    """Losses on the tokens of the data's answers."""

    name = "token"

    def check_supervised(self, objective: TokenObjective, loss_on: LossOn) -> None:
        """Refuse the tokens of prompts where the loss means something on responses only."""
        if loss_on == "all" and objective.needs.responses_only:
            raise responses_only(objective)

    def check_rationales(self, objective: TokenObjective) -> None:
        """Refuse objectives that have answers of their own."""
        if objective.needs.form is not None:
            super().check_rationales(objective)

    def best_metric(self, objective: TokenObjective, wanted: str, *, measured: bool) -> str:
        """Return `loss` by default: the objective's own on validation rows.

        One that trains the probabilities over valid tokens leaves the cross-entropy over the whole vocabulary to
        chance.
        """
        return "loss" if wanted == "auto" else wanted

    def supervised(self, objective: TokenObjective, data: SupervisedData, training: TrainingOptions) -> TrainingSetup:
        """Set up a training on all training rows, validated by the objective's own loss too."""
        validation = Validation(data.engine, data.valid, data.metric, objective=objective, answers=data.valid_answers)
        return token_setup(
            objective,
            validation,
            data.rows,
            loss_on=data.loss_on,
            augmentation=data.augmentation,
            token_budget=training.token_budget,
            seed=training.seed,
        )

    def train(
        self,
        objective: TokenObjective,
        validation: Validation,
        rows: Sequence[Row],
        out: Path,
        training: TrainingOptions,
        *,
        title: str,
        resume: bool,
    ) -> dict[str, Any]:
        """Train on the answers of some rows."""
        setup = token_setup(objective, validation, rows, token_budget=training.token_budget, seed=training.seed)
        return setup.trainer(training, out, title).run(resume=resume)
