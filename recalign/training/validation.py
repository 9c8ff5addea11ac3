"""Validation while training: an objective's loss and the cross-entropy of the answers; a metric of decoded lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from accelerate.utils import gather_object
from torch.nn.functional import cross_entropy

from recalign.api import TokenObjective
from recalign.data.dataset import Row
from recalign.decoding.engine import PolicyEngine
from recalign.errors import UserError
from recalign.evaluation.per_user import evaluate_lists
from recalign.metrics.expression import MetricExpression
from recalign.objectives.sft import Sft
from recalign.tasks import find_task
from recalign.training.accumulation import weighed_loss
from recalign.training.offline.examples import AnswerExamples, answered_rows, collate
from recalign.training.offline.token_step import TokenStep
from recalign.training.processes import process


@dataclass(frozen=True)
class Validation:
    """How a policy is validated.

    Args:
        engine: bound to the policy.
        rows: validation rows.
        metric: of decoded lists, or None.
        name: of the metric's figure.
        objective: whose loss on the rows is a figure too, or None.
        answers: rows whose answers the losses are of; None: the same rows.
    """

    engine: PolicyEngine
    rows: Sequence[Row]
    metric: MetricExpression | None = None
    name: str = "metric"
    objective: TokenObjective | None = None
    answers: Sequence[Row] | None = None

    def figures(self) -> dict[str, float]:
        """Return the objective's `loss`, the answers' `cross_entropy` over the whole vocabulary, and the metric."""
        step = TokenStep(self.engine.policy, self.objective or Sft(), self.engine)
        loss, cross_entropy = validation_loss(step, self.rows if self.answers is None else self.answers)
        found = {} if self.objective is None else {"loss": loss}
        found["cross_entropy"] = cross_entropy
        return found if self.metric is None else {**found, self.name: self.score()}

    def score(self) -> float:
        """Return the metric."""
        assert self.metric is not None
        return validation_metric(self.engine, self.metric, self.rows)


def validation_loss(step: TokenStep, rows: Sequence[Row], batch_size: int = 64) -> tuple[float, float]:
    """Return the objective's loss on the answers, and their mean cross-entropy per token, which compares objectives.

    Both are those of all rows in one batch, however they are cut.

    Args:
        step: computes what the objective reads, and logits over the whole vocabulary.
        rows: each with at least one target; every process has its share of them.
        batch_size: rows a forward pass.

    Raises:
        UserError: a third party's objective raises; it is named.
    """
    policy = step.policy
    rows = answered_rows(policy, rows, step.objective.needs)
    examples = AnswerExamples(policy, rows, policy.prompter.list_length, cache_tokens=0)
    rank, processes = process()
    order = sorted(range(len(rows)), key=examples.length_of)[rank::processes]
    pad = partial(collate, pad=policy.titles.end, all_tokens=False)
    sums: list[tuple[float, float, float, int]] = []
    with torch.no_grad():
        for start in range(0, len(order), batch_size):
            batch = [examples[0, index] for index in order[start : start + batch_size]]
            answers = step.answers(policy.model, pad(batch))
            loss, weight, _ = weighed_loss(step.objective, answers)
            total = cross_entropy(answers.logits, answers.labels, reduction="sum")
            sums.append((float(loss) * weight, weight, float(total), len(answers.labels)))
    loss_sum, weights, entropy, tokens = np.sum(gather_object(sums), axis=0)
    return float(loss_sum / (weights or 1.0)), float(entropy / tokens)


def validation_metric(engine: PolicyEngine, expression: MetricExpression, rows: Sequence[Row]) -> float:
    """Return the mean of an expression over the lists that the model decodes, as its task says.

    Args:
        engine: bound to the model as it is now.
        expression: bound to the catalogue.
        rows: those for which it is not defined are left out; every process decodes its share.

    Raises:
        UserError: it is defined for none of the rows.
    """
    rank, processes = process()
    rows = rows[rank::processes]
    values = gather_object(_values(engine, expression, rows) if rows else [])
    if not values:
        raise UserError(
            f"The metric {expression.text} is defined for no validation row.",
            "Prepare the dataset with another --relevance or split, or choose another --metric.",
        )
    return float(np.mean(values))


def _values(engine: PolicyEngine, expression: MetricExpression, rows: Sequence[Row]) -> list[float]:
    lists = find_task(engine.task).decode(engine, rows)
    return evaluate_lists(expression, lists.items, lists.lengths, rows).tolist()
