"""Trainings on the data's answers, set up: the step, examples and batches of token and preference objectives."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from recalign.api import PreferenceObjective, Row, TokenObjective
from recalign.models.policy import reference_policy
from recalign.tasks import find_task
from recalign.training.family import LossOn
from recalign.training.offline.examples import AnswerExamples, Augmentation, answered_rows, collate
from recalign.training.offline.negatives import Negatives, Rejected
from recalign.training.offline.preference_step import PreferenceExamples, PreferenceStep
from recalign.training.offline.token_step import TokenStep
from recalign.training.setup import TrainingSetup
from recalign.training.training_options import TOKEN_BUDGET
from recalign.training.validation import Validation


def token_setup(
    objective: TokenObjective,
    validation: Validation,
    rows: Sequence[Row],
    *,
    loss_on: LossOn = "auto",
    augmentation: Augmentation | None = None,
    token_budget: int = TOKEN_BUDGET,
    seed: int = 0,
) -> TrainingSetup:
    """Set up a training on the answers of some rows.

    Args:
        objective: the loss.
        validation: of the policy that is trained, with its engine.
        rows: training rows.
        loss_on: as in SupervisedData.
        augmentation: how rows vary from epoch to epoch.
        token_budget: maximum number of tokens per pass, padding included.
        seed: of the negatives that rows ask about.
    """
    engine = validation.engine
    policy = engine.policy
    dense = policy.from_scratch and policy.prompter.template.source is None and not objective.needs.responses_only
    dense &= not find_task(policy.prompter.task).asks
    rows = answered_rows(policy, rows, objective.needs, seed)
    all_tokens = dense if loss_on == "auto" else loss_on == "all"
    examples = AnswerExamples(policy, rows, policy.prompter.list_length, augmentation=augmentation)
    together = partial(collate, pad=policy.titles.end, all_tokens=all_tokens)
    return TrainingSetup(TokenStep(policy, objective, engine, token_budget), examples, together, validation)


def preference_setup(
    objective: PreferenceObjective,
    validation: Validation,
    rows: Sequence[Row],
    *,
    seed: int,
    batch_size: int | None = None,
    negatives: Negatives | Rejected | None = None,
    token_budget: int = TOKEN_BUDGET,
) -> TrainingSetup:
    """Set up a training that prefers the targets of some rows; the policy as it is now is the reference.

    Args:
        objective: the loss.
        validation: of the policy that is trained, with its engine.
        rows: training rows.
        seed: of the negatives.
        batch_size: rows that a process takes at a time, as far as that is known.
        negatives: where rejected titles come from, if not from where the objective says.
        token_budget: maximum number of tokens per pass, padding included.

    Raises:
        UserError: fewer items than negatives: in the catalogue, in a batch, or left to some row.
    """
    engine = validation.engine
    policy = engine.policy
    if negatives is None:
        needs = objective.needs
        negatives = Negatives(engine, needs.source, needs.negatives, seed, batch_size)
        negatives.check(rows)
    step = PreferenceStep(policy, objective, engine, reference_policy(policy), negatives, token_budget)
    examples = PreferenceExamples(AnswerExamples(policy, rows, policy.prompter.list_length))
    return TrainingSetup(step, examples, list, validation)
