"""Metric expressions: `ndcg@5 - 0.5*mgu + 0.1*novelty(log_base=2)`, weighted sums of rewards, parsed by hand."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NoReturn

import numpy as np

from recalign.api import Catalogue, ListBatch, Metric, Row
from recalign.errors import UserError, did_you_mean
from recalign.params import build_params
from recalign.plugins import registry
from recalign.plugins.registry import blamed, plugin_error

TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)|(?P<sign>[-+*@(),=])|(?P<text>'[^']*'|\"[^\"]*\"))"
)
GRAMMAR = "Write a weighted sum such as 'ndcg@5 - 0.5*mgu' or 'ndcg@5 + 0.1*novelty(log_base=2)'."


@dataclass(frozen=True)
class Term:
    """One summand: coefficient * reward@cutoff(parameters)."""

    coefficient: float
    reward: Metric
    cutoff: int | None
    params: Mapping[str, str]

    @property
    def text(self) -> str:
        """The term without its coefficient, as users write it: `ndcg@5`."""
        cutoff = "" if self.cutoff is None else f"@{self.cutoff}"
        params = ", ".join(f"{name}={_quoted(value)}" for name, value in self.params.items())
        return f"{self.reward.name}{cutoff}" + (f"({params})" if params else "")


@dataclass(frozen=True)
class RewardExpression:
    """A weighted sum of rewards. `bind` it to a catalogue before anything is scored.

    Args:
        terms: the summands, in the order that they were written.
    """

    terms: tuple[Term, ...]

    @property
    def text(self) -> str:
        """The canonical form, such as `ndcg@5 - 0.5*mgu`: equal texts mean equal rewards."""
        parts = []
        for term in self.terms:
            size = "" if abs(term.coefficient) == 1.0 else f"{abs(term.coefficient):.12g}*"
            sign = "-" if term.coefficient < 0 else "+"
            parts.append((f" {sign} " if parts else sign.strip("+")) + size + term.text)
        return "".join(parts)

    @property
    def reads(self) -> frozenset[str]:
        """What any of the terms reads: targets, history, genres, popularity, logps."""
        return frozenset().union(*(term.reward.reads for term in self.terms))

    @property
    def harms(self) -> list[str]:
        """Terms that count for the list although lower values are better, such as a bare `mgu`; worth a warning."""
        return [term.text for term in self.terms if term.coefficient > 0 and not term.reward.higher_is_better]

    def bind(self, catalogue: Catalogue) -> RewardExpression:
        """Attach the catalogue to every term and return the expression.

        Raises:
            UserError: the catalogue lacks what a reward reads, or a plugin raises.
        """
        for term in self.terms:
            with blamed("metric", term.reward, "bind"):
                term.reward.bind(catalogue, term.cutoff)
        return self

    def defined_for(self, row: Row) -> bool:
        """Whether every term means anything for a row."""
        return all(_defined_for(term.reward, row) for term in self.terms)

    def score_terms(self, lists: ListBatch) -> dict[str, np.ndarray]:
        """Values of each term before weighting: text -> float64 [N].

        Raises:
            UserError: a reward raises, or returns another shape or a value that is not finite.
        """
        return {term.text: _score(term.reward, lists) for term in self.terms}

    def score(self, lists: ListBatch) -> np.ndarray:
        """Values of N lists: float64 [N], finite.

        Raises:
            UserError: as `score_terms`.
        """
        total = np.zeros(len(lists))
        for term in self.terms:
            total += term.coefficient * _score(term.reward, lists)
        return total


def parse_reward(text: str, extra: Mapping[str, type[Metric]] | None = None) -> RewardExpression:
    """Parse a weighted sum of rewards.

    Args:
        text: such as `ndcg@5 - 0.5*mgu`; `@k` cuts the list, parameters stand in parentheses.
        extra: rewards known by name besides the installed plugins (evaluation's own measures).

    Raises:
        UserError: a syntax error (with its place), an unknown reward (did-you-mean) or parameter, a bad `@k`.
    """
    return _Parser(text, extra or {}).expression()


def check_cutoffs(expression: RewardExpression, list_length: int) -> None:
    """Refuse `@k` beyond the end of the lists, where the value would silently be that of a shorter list.

    Raises:
        UserError: some k is larger than `list_length`.
    """
    for term in expression.terms:
        if term.cutoff is not None and term.cutoff > list_length:
            raise UserError(
                f"{term.text} looks at {term.cutoff} positions, and the lists have {list_length}.",
                f"Use {term.reward.name}@{list_length} or less, or make longer lists.",
            )


def _quoted(value: str) -> str:
    """Write a parameter's value as the parser reads it."""
    if re.fullmatch(r"[A-Za-z_]\w*|[-+.\deE]+", value):
        return value
    return f'"{value}"' if "'" in value else f"'{value}'"


def _defined_for(reward: Metric, row: Row) -> bool:
    with blamed("metric", reward, f"defined_for for user '{row.user_id}'"):
        return bool(reward.defined_for(row))


def _score(reward: Metric, lists: ListBatch) -> np.ndarray:
    """Score with one reward and check what comes back: float64 [N], finite."""
    with blamed("metric", reward, "score"):
        values = np.asarray(reward.score(lists), dtype=np.float64)
    if values.shape != (len(lists),):
        what = f"returned shape {list(values.shape)} for {len(lists)} lists, not one number a list"
        raise plugin_error("metric", reward, what)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        row, items = lists.rows[int(bad[0])], lists.items[bad[0], : lists.lengths[bad[0]]]
        names = [reward.catalogue.item_ids[item] if item >= 0 else "(no item)" for item in items]
        raise plugin_error(
            "metric",
            reward,
            f"returned {values[bad[0]]} for user '{row.user_id}' (row {row.index}) and the list [{', '.join(names)}]; "
            f"{len(bad)} of {len(lists)} values are not finite",
        )
    return values


class _Parser:
    """Recursive descent over: sum = [sign] term (sign term)*; term = [number *] reward [* number]."""

    def __init__(self, text: str, extra: Mapping[str, type[Metric]]) -> None:
        self.text, self.extra = text, extra
        self.tokens: list[tuple[str, str, int]] = []  # kind, text, place
        place, end = 0, len(text.rstrip())
        while place < end:
            match = TOKEN.match(text, place)
            if match is None:
                self.place = len(text) - len(text[place:].lstrip())
                raise UserError(f"In the reward {text!r}: {text[self.place]!r} is not understood.", GRAMMAR)
            kind = str(match.lastgroup)
            self.tokens.append((kind, match[kind], match.start(kind)))
            place = match.end()
        self.next = 0

    def expression(self) -> RewardExpression:
        terms = [self.term(self.sign(optional=True))]
        while self.next < len(self.tokens):
            terms.append(self.term(self.sign(optional=False)))
        return RewardExpression(tuple(terms))

    def sign(self, *, optional: bool) -> float:
        if self.take("+"):
            return 1.0
        if self.take("-"):
            return -1.0
        if not optional:
            self.fail("+ or - is expected: rewards can be added, subtracted and weighted, nothing else")
        return 1.0

    def term(self, sign: float) -> Term:
        coefficient = sign
        number = self.take_kind("number")
        if number is not None:
            if not self.take("*"):
                self.fail("* and a reward are expected after a number")
            coefficient *= float(number)
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
                self.fail("a number is expected: rewards cannot be multiplied with each other")
            coefficient *= float(factor)
        if not math.isfinite(coefficient):
            self.fail(f"a finite number is expected, not the weight {coefficient}")
        return Term(coefficient, self.create(name, params, cutoff), cutoff, params)

    def name(self) -> str:
        """Consume a reward's name: the longest that is known of words joined by hyphens, else the first word.

        `ndcg-mgu` is a difference, unless a reward of that name is installed; with blanks it always is one.
        """
        found = self.take_kind("name")
        if found is None:
            self.fail("the name of a reward is expected")
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
        """Names of all rewards."""
        return {*self.extra, *(entry.name for entry in registry.list_plugins("metric"))}

    def cutoff(self, name: str) -> int:
        digits = self.take_kind("number")
        if digits is None or not digits.isdigit() or int(digits) < 1:
            self.next -= digits is not None
            self.fail(f"{name}@k needs a whole number k of at least 1")
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

    def create(self, name: str, params: Mapping[str, str], cutoff: int | None) -> Metric:
        if name in self.extra:
            reward = self.extra[name](build_params(self.extra[name].Params, params, f"metric '{name}'"), name=name)
        elif self.extra and name not in (names := [entry.name for entry in registry.list_plugins("metric")]):
            raise UserError(f"There is no metric named '{name}'.", did_you_mean(name, [*self.extra, *names]))
        else:
            reward = registry.create("metric", name, params)
        if cutoff is not None and not reward.takes_cutoff:
            raise UserError(f"The reward '{name}' takes no @k (in {self.text!r}).", f"Write {name}.")
        return reward

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
        where = f"at {rest!r}" if rest else "at its end"
        raise UserError(f"The reward {self.text!r} is not understood {where}: {expected}.", GRAMMAR)
