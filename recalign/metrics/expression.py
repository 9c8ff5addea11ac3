"""Metric expressions: `ndcg@5 - 0.5*mgu + 0.1*similarity`, weighted sums of metrics.

A reward is a metric expression that alignment maximises.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from recalign.api import Catalogue, CorpusMetric, ListBatch, Metric, Predictions, Row
from recalign.errors import UserError
from recalign.metrics.parser import Term, parse_terms
from recalign.plugins.registry import blamed, plugin_error

LARGEST = 1e18
"""What a sum may come to: the squares of rewards still have single precision."""


@dataclass(frozen=True)
class MetricExpression:
    """A weighted sum of metrics. `bind` it to a catalogue before anything is scored.

    Args:
        terms: the summands, in the order that they were written; their metrics are per-list ones.
    """

    terms: tuple[Term, ...]

    @property
    def text(self) -> str:
        """The canonical form, such as `ndcg@5 - 0.5*mgu`: equal texts mean equal values."""
        parts: list[str] = []
        for term in self.terms:
            size = "" if abs(term.coefficient) == 1.0 else f"{abs(term.coefficient):.12g}*"
            sign = "-" if term.coefficient < 0 else "+"
            parts.append((f" {sign} " if parts else sign.strip("+")) + size + term.text)
        return "".join(parts)

    @property
    def reads(self) -> frozenset[str]:
        """What any of the terms reads: targets, history, genres, popularity, logps, ranks, exact."""
        return frozenset().union(*(term.metric.reads for term in self.terms))

    @property
    def higher_is_better(self) -> bool | None:
        """Whether higher values are better (False: lower ones); None where terms disagree or one has no direction."""
        found = {_direction(term) for term in self.terms}
        return found.pop() if len(found) == 1 else None

    @property
    def harms(self) -> list[str]:
        """Terms that raise the sum although lower values are better, such as a bare `mgu`; worth a warning."""
        return [term.text for term in self.terms if term.coefficient > 0 and term.metric.higher_is_better is False]

    def single_terms(self) -> list[MetricExpression]:
        """Return the metric of each term without its weight, as an expression of its own; bound where this one is."""
        return [MetricExpression((replace(term, coefficient=1.0),)) for term in self.terms]

    def bind(self, catalogue: Catalogue) -> MetricExpression:
        """Attach the catalogue to every term and return the expression.

        Raises:
            UserError: the catalogue lacks what a metric reads, or a plugin raises.
        """
        for term in self.terms:
            _bind(term, catalogue)
        return self

    def defined_for(self, row: Row) -> bool:
        """Return whether every term means anything for a row."""
        return all(_defined_for(_per_list(term), row) for term in self.terms)

    def score(self, lists: ListBatch) -> np.ndarray:
        """Return the values of N lists: float64 [N], finite.

        Raises:
            UserError: a metric raises, or returns another shape or a value that is not finite.
        """
        total = np.zeros(len(lists))
        for term in self.terms:
            total += term.coefficient * _score(_per_list(term), lists)
        if not np.isfinite(total).all() or np.abs(total).max(initial=0.0) > LARGEST:
            raise UserError(
                f"The sum {self.text} reaches {total[np.abs(total).argmax()]:g}, which single precision cannot hold.",
                "Give its terms smaller weights.",
            )
        return total


@dataclass(frozen=True)
class CorpusExpression:
    """One corpus-level metric, such as `coverage@5`. `bind` it to a catalogue before anything is scored.

    Args:
        term: it; its coefficient is 1.
    """

    term: Term

    @property
    def text(self) -> str:
        """The canonical form, such as `coverage@5`."""
        return self.term.text

    @property
    def terms(self) -> tuple[Term, ...]:
        """The one term."""
        return (self.term,)

    @property
    def higher_is_better(self) -> bool | None:
        """Whether higher values are better; False: lower ones; None: neither."""
        return self.term.metric.higher_is_better

    def bind(self, catalogue: Catalogue) -> CorpusExpression:
        """Attach the catalogue and return the expression. Errors: as `MetricExpression.bind`."""
        _bind(self.term, catalogue)
        return self

    def score(self, predictions: Predictions, rows: Sequence[Row]) -> float:
        """Return the value of U lists together.

        Raises:
            UserError: the metric raises, or returns a value that is no finite number.
        """
        metric = self.term.metric
        assert isinstance(metric, CorpusMetric)
        with blamed("metric", metric, "score"):
            value = float(metric.score(predictions, rows))
        if not np.isfinite(value):
            raise plugin_error("metric", metric, f"returned {value} for {len(rows)} lists")
        return value


def parse_expression(text: str, provided: Collection[str] = ()) -> MetricExpression:
    """Parse a weighted sum of per-list metrics, such as a reward.

    Args:
        text: such as `ndcg@5 - 0.5*mgu`; `@k` cuts the list, parameters stand in parentheses.
        provided: what is at hand besides lists and rows: `exact` where exact predictions are.

    Raises:
        UserError: a syntax error (with its place), an unknown metric (did-you-mean) or parameter, a bad `@k`, a metric
            of all lists together, one that needs what is not provided.
    """
    return _weighted_sum(parse_terms(text), provided)


def parse_metric(text: str, provided: Collection[str] = ()) -> MetricExpression | CorpusExpression:
    """Parse what `eval --metrics` names: a weighted sum of per-list metrics, or one corpus-level metric.

    Arguments and errors as in `parse_expression`.
    """
    terms = parse_terms(text)
    if len(terms) == 1 and isinstance(terms[0].metric, CorpusMetric) and terms[0].coefficient == 1.0:
        return CorpusExpression(terms[0])
    return _weighted_sum(terms, provided)


def _weighted_sum(terms: tuple[Term, ...], provided: Collection[str]) -> MetricExpression:
    """Refuse terms that are no per-list metrics, and those that need what is not provided."""
    for term in terms:
        if isinstance(term.metric, CorpusMetric):
            raise UserError(
                f"{term.text} is one value for all lists of an evaluation together; it cannot be a reward or part of a "
                "sum.",
                "Name it alone in `recalign eval --metrics`, or choose a metric that has a value for each list.",
            )
        if "exact" in term.metric.reads and "exact" not in provided:
            raise UserError(
                f"{term.text} needs the model's exact best titles.",
                "Decode with --decoder exact and name that folder: `recalign eval PREDICTIONS --exact FOLDER`.",
            )
    return MetricExpression(terms)


def check_cutoffs(expression: MetricExpression | CorpusExpression, list_length: int) -> None:
    """Refuse `@k` beyond the end of the lists, where the value would silently be that of a shorter list.

    Raises:
        UserError: some k is larger than `list_length`.
    """
    for term in expression.terms:
        if term.cutoff is not None and term.cutoff > list_length:
            raise UserError(
                f"{term.text} looks at {term.cutoff} positions, and the lists have {list_length}.",
                f"Use {term.metric.name}@{list_length} or less, or make longer lists.",
            )


def _direction(term: Term) -> bool | None:
    better = term.metric.higher_is_better
    return better if better is None else better == (term.coefficient > 0)


def _bind(term: Term, catalogue: Catalogue) -> None:
    with blamed("metric", term.metric, "bind"):
        term.metric.bind(catalogue, term.cutoff)


def _per_list(term: Term) -> Metric:
    assert isinstance(term.metric, Metric)
    return term.metric


def _defined_for(metric: Metric, row: Row) -> bool:
    with blamed("metric", metric, f"defined_for for user '{row.user_id}'"):
        return bool(metric.defined_for(row))


def _score(metric: Metric, lists: ListBatch) -> np.ndarray:
    """Score with one metric and check what comes back: float64 [N], finite."""
    with blamed("metric", metric, "score"):
        values = np.asarray(metric.score(lists), dtype=np.float64)
    if values.shape != (len(lists),):
        what = f"returned shape {list(values.shape)} for {len(lists)} lists, not one number per list"
        raise plugin_error("metric", metric, what)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        row, items = lists.rows[int(bad[0])], lists.items[bad[0], : lists.lengths[bad[0]]]
        names = [metric.catalogue.item_ids[item] if item >= 0 else "(no item)" for item in items]
        raise plugin_error(
            "metric",
            metric,
            f"returned {values[bad[0]]} for user '{row.user_id}' (row {row.index}) and the list [{', '.join(names)}]; "
            f"{len(bad)} of {len(lists)} values are not finite",
        )
    return values
