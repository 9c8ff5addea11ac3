"""Validation while training: an objective's loss and the cross-entropy of the answers; a metric of decoded lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch.nn.functional import cross_entropy

from recalign.api import Predictions, TokenObjective
from recalign.data.dataset import Row
from recalign.decoding.engine import PolicyEngine
from recalign.errors import UserError
from recalign.evaluation.examples import EXAMPLES, example_list
from recalign.evaluation.per_user import evaluate_lists
from recalign.metrics.expression import MetricExpression
from recalign.objectives.sft import Sft
from recalign.tasks import find_task
from recalign.training.accumulation import weighed_loss
from recalign.training.offline.examples import AnswerExamples, answered_rows, collate
from recalign.training.offline.token_step import TokenStep
from recalign.training.processes import process
from recalign.training.rows import evenly_spaced

REWARD = "reward"
"""What `align` calls the figure that picks the checkpoint."""


@dataclass(frozen=True)
class Validated:
    """What a validation found.

    Args:
        figures: name -> value.
        samples: a few rows' decoded lists, as `example_list` returns them; none in processes but the first, and where
            no lists are decoded.
    """

    figures: Mapping[str, float]
    samples: Sequence[Mapping[str, Any]] = field(default_factory=tuple)


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
        before: what was found before the first update, where somebody looked.
    """

    engine: PolicyEngine
    rows: Sequence[Row]
    metric: MetricExpression | None = None
    name: str = "metric"
    objective: TokenObjective | None = None
    answers: Sequence[Row] | None = None
    before: Validated | None = None

    def run(self) -> Validated:
        """Find the objective's `loss`, the answers' `cross_entropy` over the whole vocabulary, and the metric."""
        step = TokenStep(self.engine.policy, self.objective or Sft(), self.engine)
        loss, cross_entropy = validation_loss(step, self.rows if self.answers is None else self.answers)
        found = {} if self.objective is None else {"loss": loss}
        found["cross_entropy"] = cross_entropy
        if self.metric is None:
            return Validated(found)
        decoded = self.decode()
        return Validated({**found, **decoded.figures}, decoded.samples)

    def decode(self) -> Validated:
        """Find the metric alone."""
        assert self.metric is not None
        return validate_lists(self.engine, self.metric, self.rows, self.name)


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


def validate_lists(engine: PolicyEngine, expression: MetricExpression, rows: Sequence[Row], name: str) -> Validated:
    """Find the mean of an expression over the lists that the model decodes, as its task says.

    Args:
        engine: bound to the model as it is now.
        expression: bound to the catalogue.
        rows: those for which it is not defined are left out; every process decodes its share.
        name: what the figure is called.

    Raises:
        UserError: it is defined for none of the rows.
    """
    rank, processes = process()
    rows = rows[rank::processes]
    lists = find_task(engine.task).decode(engine, rows) if rows else None
    mine = [] if lists is None else evaluate_lists(expression, lists.items, lists.lengths, rows).tolist()
    values = gather_object(mine)
    if not values:
        raise UserError(
            f"The metric {expression.text} is defined for no validation row.",
            "Prepare the dataset with another --relevance or split, or choose another --metric.",
        )
    return Validated({name: float(np.mean(values))}, _samples(engine, lists, rows) if rank == 0 else ())


def _samples(engine: PolicyEngine, lists: Predictions | None, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Show some lists, of the same rows at every validation: they lie evenly among all."""
    shown = evenly_spaced(range(len(rows)), EXAMPLES)
    return [
        example_list(rows[place], lists.items[place, : lists.lengths[place]].tolist(), engine.catalogue)
        for place in shown
        if lists is not None
    ]
