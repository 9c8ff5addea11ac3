"""What counts as relevant: `all`, `rating` (graded) or a threshold such as `rating>=4`."""

from __future__ import annotations

import operator
import re

import numpy as np

from recalign.errors import UserError

COMPARISONS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
THRESHOLD = re.compile(r"rating\s*(>=|<=|>|<)\s*([-+]?\d+(?:\.\d+)?)")


def check_relevance(rule: str) -> None:
    """Check the form of a rule.

    Raises:
        UserError: it is none of `all`, `rating` and `rating>=NUMBER` (or >, <=, <).
    """
    if rule not in ("all", "rating") and not THRESHOLD.fullmatch(rule):
        raise UserError(f"--relevance {rule!r} is not understood.", 'Known: all, rating, "rating>=4" (also >, <=, <).')


def gains(rule: str, ratings: np.ndarray | None, count: int) -> np.ndarray:
    """Relevance of each event.

    Args:
        rule: as `check_relevance` accepts it.
        ratings: [E] float64, NaN where there is none; None where the source has no ratings.
        count: E.

    Returns:
        [E] float64: 1.0 for `all`; the rating itself for `rating`; 1.0 or 0.0 by the threshold.

    Raises:
        UserError: the rule reads ratings and some are missing, or `rating` meets a negative one.
    """
    check_relevance(rule)
    if rule == "all":
        return np.ones(count)
    if ratings is None or np.isnan(ratings).all():
        raise UserError(f"--relevance {rule!r} reads ratings, and the source has none.", "Pass --relevance all.")
    holes = int(np.isnan(ratings).sum())
    if holes:
        raise UserError(
            f"--relevance {rule!r} reads ratings, and {holes} of {len(ratings)} interactions have none.",
            "Give every interaction a rating, or pass --relevance all.",
        )
    if rule == "rating":
        if ratings.min() < 0:
            raise UserError(
                f"--relevance rating takes ratings as gains, and one is {ratings.min():g}.", "Gains cannot be negative."
            )
        return ratings.astype(np.float64)
    symbol, number = THRESHOLD.fullmatch(rule).groups()  # type: ignore[union-attr]
    return COMPARISONS[symbol](ratings, float(number)).astype(np.float64)
