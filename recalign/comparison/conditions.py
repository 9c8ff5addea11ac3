"""Conditions on a comparison, such as `ndcg@5 < reference - 0.002`, by which a program decides what to do next."""

from __future__ import annotations

import re
from dataclasses import dataclass

from recalign.comparison.aggregation import System
from recalign.comparison.systems import Comparison
from recalign.errors import UserError, did_you_mean
from recalign.evaluation.tables import figure, number, p_text, signed

NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
CONDITION = re.compile(
    rf"\s*(?P<metric>.+?)\s*(?P<sign>[<>])\s*"
    rf"(?:(?P<reference>reference)\s*(?:(?P<side>[+-])\s*(?P<offset>{NUMBER}))?|(?P<level>-?{NUMBER}))"
    rf"\s*(?:,\s*(?:p\s*<\s*(?P<p>{NUMBER})|(?P<interval>interval)))?\s*"
)
HINT = (
    "Write METRIC < reference - NUMBER, METRIC > reference, METRIC < NUMBER; after it, if wanted, ', p < 0.05' or "
    "', interval'."
)


@dataclass(frozen=True)
class Condition:
    """What is not to be of any model but the reference and oracles.

    Args:
        text: as written.
        metric: whose mean is looked at.
        below: whether the condition holds below the bound; else above.
        relative: whether the bound is the reference's mean plus `offset`; else `offset` itself.
        offset: see `relative`.
        p: bound on the test's p, after Holm's correction, below which it has to be besides; None: no bound.
        interval: whether the whole 95% interval has to lie beyond the bound, not the mean alone.
    """

    text: str
    metric: str
    below: bool
    relative: bool
    offset: float
    p: float | None = None
    interval: bool = False

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read a condition.

        Raises:
            UserError: it has another form, or asks for a p-value without the reference.
        """
        found = CONDITION.fullmatch(text)
        if found is None:
            raise UserError(f"--fail-if {text!r} is no condition.", HINT)
        relative = found["reference"] is not None
        if found["p"] is not None and not relative:
            raise UserError(
                f"--fail-if {text!r}: the test is of the difference to the reference, not to a number.", HINT
            )
        offset = (
            float(found["offset"] or 0.0) * (-1 if found["side"] == "-" else 1) if relative else float(found["level"])
        )
        p = None if found["p"] is None else float(found["p"])
        return cls(text.strip(), found["metric"], found["sign"] == "<", relative, offset, p, bool(found["interval"]))

    def check(self, comparison: Comparison) -> None:
        """Refuse a condition that says nothing about a comparison.

        Raises:
            UserError: nobody has the metric, or it has one value for all lists and is asked for a p or an interval.
        """
        corpus = comparison.systems[0].corpus
        if self.metric not in (*comparison.metrics, *corpus):
            raise UserError(
                f"--fail-if {self.text!r}: no run has the metric '{self.metric}'.",
                did_you_mean(self.metric, [*comparison.metrics, *corpus]),
            )
        if self.metric in corpus and (self.p is not None or self.interval):
            raise UserError(
                f"--fail-if {self.text!r}: {self.metric} is one value for all lists together, without p and interval.",
                "Leave them out, or name a metric that has a value for each list.",
            )

    def failures(self, comparison: Comparison) -> list[str]:
        """Say of each model for which the condition holds what was found; a model without the metric fails no one.

        Args:
            comparison: checked by `check`.
        """
        reference = next(system for system in comparison.systems if system.name == comparison.reference)
        models = [s for s in comparison.systems if not s.baseline and not s.oracle and s is not reference]
        found = []
        for system in models if self.relative or reference.baseline else [reference, *models]:
            told = self._told(comparison, system, reference)
            if told:
                found.append(f"{system.name}: {self.metric} {told}")
        return found

    def _told(self, comparison: Comparison, system: System, reference: System) -> str:
        """Say what a system has, where the condition holds for it; else nothing."""
        if self.metric in system.corpus:
            value, base = system.corpus[self.metric], reference.corpus.get(self.metric)
            if self.relative and base is None:
                return ""
            bound = self.offset + (base or 0.0 if self.relative else 0.0)
            return number(value) if self._beyond(value, bound) else ""
        interval, test = system.summary[self.metric], None
        if self.relative:
            test = comparison.tests[system.name][self.metric]
            interval = test.difference
        edge = interval.mean if not self.interval else interval.high if self.below else interval.low
        if edge is None or not self._beyond(edge, self.offset):
            return ""
        if test is None:
            return figure(interval)
        p = comparison.adjusted[system.name][self.metric]
        if self.p is not None and not p < self.p:
            return ""
        return (
            f"{number(system.summary[self.metric].mean)}, {signed(interval)} on {reference.name}, p (Holm) {p_text(p)}"
        )

    def _beyond(self, value: float, bound: float) -> bool:
        return value < bound if self.below else value > bound
