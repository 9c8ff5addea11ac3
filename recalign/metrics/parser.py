"""The parser of metric expressions: recursive descent over weighted sums, without `eval`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NoReturn

from recalign.api import AnyMetric, Plugin
from recalign.errors import UserError, shortened
from recalign.plugins import registry

TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)|(?P<name>[A-Za-z_]\w*)|(?P<sign>[-+*@(),=])"
    r"|(?P<text>'[^']*'|\"[^\"]*\"))",
    re.ASCII,
)
GRAMMAR = "Write a weighted sum such as 'ndcg@5 - 0.5*mgu' or 'ndcg + 0.1*assistant(run=FOLDER)'."
LONGEST = 20_000
"""Characters of an expression."""
SMALLEST, LARGEST = 1e-9, 1e9
"""What the size of a weight may be: below it nothing is added, above it single precision overflows."""
DIGITS = 9
"""Of a cutoff."""
SHOWN = 120
"""Characters of an expression that a message shows."""
ROUNDING = 1e-12
"""Of the largest weight: weights that add up to less cancel."""


@dataclass(frozen=True)
class Term:
    """One summand: coefficient * metric@cutoff(parameters)."""

    coefficient: float
    metric: AnyMetric
    cutoff: int | None
    params: Mapping[str, str]

    @property
    def text(self) -> str:
        """The term without its coefficient, as users write it: `ndcg@5`."""
        cutoff = "" if self.cutoff is None else f"@{self.cutoff}"
        params = ", ".join(f"{name}={_quoted(value)}" for name, value in self.params.items())
        return f"{self.metric.name}{cutoff}" + (f"({params})" if params else "")


def parse_terms(text: str) -> tuple[Term, ...]:
    """Parse a weighted sum of metrics into its summands.

    Args:
        text: such as `ndcg@5 - 0.5*mgu`; `@k` cuts the list, parameters stand in parentheses.

    Raises:
        UserError: a syntax error (with its place), an unknown metric (did-you-mean) or parameter, a bad `@k`, a weight
            out of all proportion, a sum that is 0 whatever the lists are.
    """
    if len(text) > LONGEST:
        raise UserError(f"A metric expression of {len(text):,} characters is too long: {_shown(text)}.", GRAMMAR)
    terms = _Parser(text).terms()
    totals: dict[str, float] = {}
    for term in terms:
        totals[term.text] = totals.get(term.text, 0.0) + term.coefficient
    largest = max(abs(term.coefficient) for term in terms)
    if all(abs(total) <= ROUNDING * largest for total in totals.values()):
        raise UserError(
            f"The metric expression {_shown(text)} is 0 for every list: its weights leave nothing.",
            "Give a metric a weight that is not 0.",
        )
    return terms


def _shown(text: str) -> str:
    """What a message shows of an expression."""
    return repr(shortened(text, SHOWN))


def _quoted(value: str) -> str:
    """Write a parameter's value as the parser reads it."""
    if re.fullmatch(r"[A-Za-z_]\w*|[-+.\deE]+", value):
        return value
    return f'"{value}"' if "'" in value else f"'{value}'"


class _Parser:
    """Recursive descent over: sum = [sign] term (sign term)*; term = [number *] metric [* number]."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str, int]] = []  # kind, text, place
        place, end = 0, len(text.rstrip())
        while place < end:
            match = TOKEN.match(text, place)
            if match is None:
                self.place = len(text) - len(text[place:].lstrip())
                raise UserError(
                    f"In the metric expression {_shown(text)}: {text[self.place]!r} is not understood.", GRAMMAR
                )
            kind = str(match.lastgroup)
            self.tokens.append((kind, match[kind], match.start(kind)))
            place = match.end()
        self.next = 0
        self.found: dict[str, type[Plugin]] = {}

    def terms(self) -> tuple[Term, ...]:
        terms = [self.term(self.sign(optional=True))]
        while self.next < len(self.tokens):
            terms.append(self.term(self.sign(optional=False)))
        return tuple(terms)

    def sign(self, *, optional: bool) -> float:
        if self.take("+"):
            return 1.0
        if self.take("-"):
            return -1.0
        if not optional:
            self.fail("+ or - is expected: metrics can be added, subtracted and weighted, nothing else")
        return 1.0

    def term(self, sign: float) -> Term:
        coefficient = sign
        number = self.take_kind("number")
        if number is not None:
            coefficient *= self.weight(number)
            if not self.take("*"):
                self.fail("* and a metric are expected after a number")
        name = self.name()
        cutoff: int | None = None
        params: dict[str, str] = {}
        while (mark := self.take("@") or self.take("(")) is not None:
            if mark == "@" and cutoff is None:
                cutoff = self.cutoff(name)
            elif mark == "(" and not params:
                params = self.params()
            else:
                self.next -= 1
                self.fail(f"{name} has this twice")
        if number is None and self.take("*"):
            factor = self.take_kind("number")
            if factor is None:
                self.fail("a number is expected: metrics cannot be multiplied with each other")
            coefficient *= self.weight(factor)
        return Term(coefficient, self.create(name, params, cutoff), cutoff, params)

    def weight(self, number: str) -> float:
        """Read a weight: 0, or a number with which the sum can be computed."""
        value = float(number)
        written = any(digit in number.lower().partition("e")[0] for digit in "123456789")
        if written and not SMALLEST <= value <= LARGEST:
            self.next -= 1
            self.fail(f"a weight from {SMALLEST:g} to {LARGEST:g} is expected")
        return value

    def name(self) -> str:
        """Consume a metric's name: the longest that is known of words joined by hyphens, else the first word.

        `ndcg-mgu` is a difference, unless a metric of that name is installed; with blanks it always is one.
        """
        found = self.take_kind("name")
        if found is None:
            self.fail("the name of a metric is expected")
        joined, end = found, self.next
        while self.joined(end) and self.joined(end + 1) and self.tokens[end][1] == "-":
            joined, end = f"{joined}-{self.tokens[end + 1][1]}", end + 2
            if joined in self.known:
                found, self.next = joined, end
        return found

    def joined(self, place: int) -> bool:
        """Whether a hyphen or a word comes there, with no blank in front."""
        if not 0 < place < len(self.tokens):
            return False
        (_, before, start), (kind, text, here) = self.tokens[place - 1], self.tokens[place]
        return (kind == "name" or text == "-") and start + len(before) == here

    @cached_property
    def known(self) -> set[str]:
        """Names of all metrics."""
        return {entry.name for entry in registry.list_plugins("metric")}

    def cutoff(self, name: str) -> int:
        digits = self.take_kind("number")
        if digits is None or not digits.isdigit() or len(digits) > DIGITS or int(digits) < 1:
            self.next -= digits is not None
            self.fail(f"{name}@k needs a whole number k of at least 1 and of at most {DIGITS} digits")
        return int(digits)

    def params(self) -> dict[str, str]:
        values: dict[str, str] = {}
        while not self.take(")"):
            if values and not self.take(","):
                self.fail("a comma or a closing parenthesis is expected")
            key = self.take_kind("name")
            if key is None or key in values or not self.take("="):
                self.fail("a parameter name=value, each name once, is expected")
            sign = "-" if self.take("-") else ""
            value = self.take_kind("number") or (None if sign else self.take_kind("name") or self.take_kind("text"))
            if value is None:
                self.fail(f"a value is expected for {key}")
            values[key] = sign + value.strip("'\"")
        return values

    def create(self, name: str, params: Mapping[str, str], cutoff: int | None) -> AnyMetric:
        if name not in self.found:
            self.found[name] = registry.find("metric", name)
        metric = registry.make(self.found[name], "metric", name, params)
        assert isinstance(metric, AnyMetric)
        if cutoff is not None and not metric.takes_cutoff:
            raise UserError(f"The metric '{name}' takes no @k (in {_shown(self.text)}).", f"Write {name}.")
        return metric

    def take(self, sign: str) -> str | None:
        """Consume a sign if it comes next."""
        if self.next < len(self.tokens) and self.tokens[self.next][:2] == ("sign", sign):
            self.next += 1
            return sign
        return None

    def take_kind(self, kind: str) -> str | None:
        """Consume a token of a kind if it comes next."""
        if self.next < len(self.tokens) and self.tokens[self.next][0] == kind:
            self.next += 1
            return self.tokens[self.next - 1][1]
        return None

    def fail(self, expected: str) -> NoReturn:
        rest = self.text[self.tokens[self.next][2] :] if self.next < len(self.tokens) else ""
        where = f"at {_shown(rest)}" if rest else "at its end"
        raise UserError(f"The metric expression {_shown(self.text)} is not understood {where}: {expected}.", GRAMMAR)
