"""The family of preference objectives: losses on the data's titles against rejected ones, and self-play."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recalign.api import PreferenceObjective, Row
from recalign.errors import UserError
from recalign.training.family import LossOn, SupervisedData, responses_only
from recalign.training.offline.offline_family import OfflineFamily
from recalign.training.offline.self_play import play
from recalign.training.offline.setups import preference_setup
from recalign.training.setup import TrainingSetup
from recalign.training.validation import Validation

if TYPE_CHECKING:
    from recalign.training.training_options import TrainingOptions


class PreferenceFamily(OfflineFamily[PreferenceObjective]):
    """Losses on the data's titles against rejected ones; with rounds, self-play."""

    name = "preference"
    starts_supervised = True

    def check_supervised(self, objective: PreferenceObjective, loss_on: LossOn) -> None:
        """Refuse rounds of self-play, and the tokens of prompts."""
        if objective.needs.rounds is not None:
            raise UserError(
                f"The objective '{objective.name}' trains in rounds, against its own recommendations.",
                f"Use recalign align --objective {objective.name}.",
            )
        if loss_on == "all":
            raise responses_only(objective)

    def best_metric(self, objective: PreferenceObjective, wanted: str, *, measured: bool) -> str:
        """Return the metric of decoded lists by default.

        Preference training may lower the likelihood of targets too, so their cross-entropy does not tell which
        checkpoint ranks best.

        Raises:
            UserError: by the loss, which is not known on validation rows.
        """
        if wanted == "loss":
            raise UserError(
                f"The loss of '{objective.name}' is not known on validation rows, which have no rejected titles.",
                "Use --best-on metric or --best-on cross-entropy.",
            )
        return ("metric" if measured else "cross_entropy") if wanted == "auto" else wanted

    def supervised(
        self, objective: PreferenceObjective, data: SupervisedData, training: TrainingOptions
    ) -> TrainingSetup:
        """Set up a training on all training rows."""
        validation = Validation(data.engine, data.valid, data.metric)
        return preference_setup(
            objective,
            validation,
            data.rows,
            seed=training.seed,
            batch_size=training.batch_size,
            token_budget=training.token_budget,
        )

    def training_defaults(
        self, objective: PreferenceObjective, training: TrainingOptions, max_steps: int, epochs: float
    ) -> TrainingOptions:
        """Fill in one epoch per stage of a round where training goes in rounds, else as usual.

        Raises:
            UserError: updates are counted for an objective that trains in rounds.
        """
        if objective.needs.rounds is None:
            return super().training_defaults(objective, training, max_steps, epochs)
        if training.max_steps:
            raise UserError(
                f"The objective '{objective.name}' trains in rounds, not for a number of updates.",
                "Leave --max-steps out; set -p rounds=... and -p round_rows=...",
            )
        return replace(training, epochs=training.epochs or 1.0)

    def train(
        self,
        objective: PreferenceObjective,
        validation: Validation,
        rows: Sequence[Row],
        out: Path,
        training: TrainingOptions,
        *,
        title: str,
        resume: bool,
    ) -> dict[str, Any]:
        """Train on some rows, in rounds of self-play where the objective asks for them."""
        rounds = objective.needs.rounds
        if rounds is not None:
            return play(objective, rounds, validation, rows, out, training, resume=resume)
        setup = preference_setup(
            objective,
            validation,
            rows,
            seed=training.seed,
            batch_size=training.batch_size,
            token_budget=training.token_budget,
        )
        return setup.trainer(training, out, title).run(resume=resume)
