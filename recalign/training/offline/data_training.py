"""Alignment by objectives on the data's answers: from a trained model, checked by the reward of decoded lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recalign import console
from recalign.api import PreferenceObjective, Row
from recalign.errors import UserError
from recalign.training.offline.lessons import Check, DataObjective, preference_lesson, token_lesson
from recalign.training.offline.self_play import play
from recalign.training.processes import process
from recalign.training.training_options import TrainingOptions
from recalign.training.validation import evenly_spaced

if TYPE_CHECKING:
    from recalign.data.dataset import PreparedDataset
    from recalign.decoding.engine import Engine
    from recalign.metrics.expression import RewardExpression
    from recalign.training.online.rollout_training import RolloutOptions

REWARD = "reward"  # the validation figure that picks the checkpoint


def align_on_data(
    engine: Engine,
    dataset: PreparedDataset,
    objective: DataObjective,
    expression: RewardExpression,
    out: Path,
    training: TrainingOptions,
    options: RolloutOptions,
    *,
    resume: bool = False,
) -> dict[str, Any]:
    """Train the engine's policy in place by a token or preference objective; the reward picks the checkpoint.

    Args:
        engine: the starting policy, trainable.
        dataset: prompts and targets.
        objective: the loss; one with `rounds` is trained by self-play.
        expression: the reward that decoded lists are validated by, bound to the dataset's catalogue.
        out: the run folder.
        training: learning rate, updates or epochs, validation; batch size and best metric are this function's own.
        options: rows an update, how many rows.
        resume: go on from the newest checkpoint.

    Returns:
        What run.json records: updates, validation before and best, seconds.

    Raises:
        UserError: several updates on a rollout, where there is none; see `RecalignTrainer.run`.
        KeyboardInterrupt: after Ctrl-C, when the present update is done and a checkpoint is saved.
    """
    if options.updates_per_rollout != 1:
        raise UserError(
            f"The objective '{objective.name}' makes no rollouts, of which --updates-per-rollout counts the updates.",
            "Leave it out.",
        )
    rows = _rows(dataset, options.prompts, training.seed)
    training = replace(training, batch_size=max(options.prompts_per_step // process()[1], 1), best_metric=REWARD)
    check = Check(engine, evenly_spaced(dataset.rows("valid"), options.valid_rows), expression, REWARD)
    start = check.score()
    if isinstance(objective, PreferenceObjective) and objective.rounds is not None:
        outcome = play(objective, objective.rounds, check, rows, out, training, resume=resume)
    else:
        if isinstance(objective, PreferenceObjective):
            lesson = preference_lesson(objective, check, rows, seed=training.seed, batch_size=training.batch_size)
        else:
            lesson = token_lesson(objective, check, rows)
        outcome = lesson.trainer(training, out, f"{objective.name}, validated by {expression.text}").run(resume=resume)
    if outcome["best_reward"] is None or outcome["best_reward"] <= start:
        console.warn(f"no checkpoint beats the starting policy on validation ({start:.4f}); the best after it is kept.")
    return {**outcome, "start_reward": start, "prompts": len(rows)}


def _rows(dataset: PreparedDataset, limit: int | None, seed: int) -> Sequence[Row]:
    """Take at most so many training rows, drawn by seed."""
    rows = dataset.rows("train")
    if limit is None or limit >= len(rows):
        return rows
    chosen = np.random.default_rng([seed, 1]).permutation(len(rows))[:limit]
    return [rows[int(index)] for index in np.sort(chosen)]
