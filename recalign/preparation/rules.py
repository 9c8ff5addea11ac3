"""Rules that leave interactions out, one after the other, and the account of what each of them leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from recalign.errors import UserError
from recalign.preparation.interactions import Interactions
from recalign.preparation.times import are_dates, in_seconds, point_of_time

if TYPE_CHECKING:
    from recalign.preparation.prepare_options import PrepareOptions


@dataclass(frozen=True)
class InteractionRule:
    """What leaves interactions out.

    Args:
        name: the option and its value, as the report shows it.
        stays: gives [E] bool, which interactions stay.
    """

    name: str
    stays: Callable[[Interactions], np.ndarray]


@dataclass
class Account:
    """What is left after each rule.

    Args:
        steps: rule, left_out, interactions, users, items of each, in order; the first one, `read`, leaves out the
            interactions of unknown items.
    """

    steps: list[dict[str, Any]] = field(default_factory=list)

    def note(self, rule: str, left_out: int, rows: Interactions) -> None:
        """Add a step.

        Args:
            rule: its name.
            left_out: how many interactions it left out.
            rows: what is left.
        """
        users, items = (int(np.count_nonzero(np.bincount(codes))) for codes in (rows.user, rows.item))
        self.steps.append(
            {"rule": rule, "left_out": left_out, "interactions": len(rows), "users": users, "items": items}
        )

    def apply(self, rules: Sequence[InteractionRule], rows: Interactions) -> Interactions:
        """Follow rules and note each.

        Raises:
            UserError: a rule leaves nothing.
        """
        for rule in rules:
            stays = rule.stays(rows)
            kept = int(np.count_nonzero(stays))
            if not kept:
                told = "".join(f", {step['left_out']} by {step['rule']}" for step in self.steps[1:] if step["left_out"])
                raise UserError(
                    f"No interaction is left of {len(rows)} after {rule.name}"
                    + (f" ({told[2:]} were left out before)." if told else "."),
                    f"Loosen {rule.name.split()[0]}, or what comes before it.",
                )
            left_out = len(rows) - kept
            rows = rows.take(stays) if left_out else rows
            self.note(rule.name, left_out, rows)
        return rows


def rules_of(options: PrepareOptions) -> list[InteractionRule]:
    """Return the rules that options ask for, in their order: time, rating, users, items, popularity, k-core."""
    found = []
    if options.since is not None:
        found.append(_since(options.since))
    if options.until is not None:
        found.append(_until(options.until))
    if options.min_rating is not None:
        found.append(_min_rating(options.min_rating))
    if options.min_user_interactions > 1:
        name = f"--min-user-interactions {options.min_user_interactions}"
        found.append(InteractionRule(name, lambda rows: frequent(rows.user, options.min_user_interactions)))
    if options.min_item_interactions > 1:
        name = f"--min-item-interactions {options.min_item_interactions}"
        found.append(InteractionRule(name, lambda rows: frequent(rows.item, options.min_item_interactions)))
    if options.popularity_cut is not None:
        percent = options.popularity_cut
        found.append(InteractionRule(f"--popularity-cut {percent:g}", lambda rows: popular(rows.item, percent)))
    if options.k_core > 1:
        found.append(
            InteractionRule(f"--k-core {options.k_core}", lambda rows: core(rows.user, rows.item, options.k_core))
        )
    return found


def _since(text: str) -> InteractionRule:
    """Leave out what is earlier."""
    name = f"--since {text}"
    return InteractionRule(name, lambda rows: _comparable(rows.time, text, name) >= point_of_time(text, "--since")[0])


def _until(text: str) -> InteractionRule:
    """Leave out what is at that time or later."""
    name = f"--until {text}"
    return InteractionRule(name, lambda rows: _comparable(rows.time, text, name) < point_of_time(text, "--until")[0])


def _comparable(time: np.ndarray, text: str, name: str) -> np.ndarray:
    """Times as they compare with a point of time: in seconds with a date, as they are with a number.

    Raises:
        UserError: a date where the times are no dates.
    """
    if not point_of_time(text, name)[1]:
        return time
    if not are_dates(time):
        raise UserError(
            f"{name} is a date, but the times are numbers from {time.min():g} to {time.max():g}.",
            "Give a number as the file has it.",
        )
    return in_seconds(time)


def _min_rating(least: float) -> InteractionRule:
    """Leave out lower ratings, and interactions without one."""
    name = f"--min-rating {least:g}"

    def stays(rows: Interactions) -> np.ndarray:
        if rows.rating is None or np.isnan(rows.rating).all():
            raise UserError(f"{name} reads ratings, and the source has none.", "Leave --min-rating out.")
        return rows.rating >= least

    return InteractionRule(name, stays)


def frequent(codes: np.ndarray, least: int) -> np.ndarray:
    """[E] whether a user (or item) has at least so many interactions."""
    return (np.bincount(codes) >= least)[codes]


def popular(item: np.ndarray, percent: float) -> np.ndarray:
    """[E] whether an event's item is among the top percent by interactions (ties: the earlier item)."""
    counts = np.bincount(item)
    keep = max(1, int(np.ceil(np.count_nonzero(counts) * percent / 100)))
    best = np.zeros(len(counts), dtype=bool)
    best[np.argsort(-counts, kind="stable")[:keep]] = True
    return best[item]


def core(user: np.ndarray, item: np.ndarray, k: int) -> np.ndarray:
    """[E] what is left when users and items with fewer than k events are removed until none is left to remove."""
    alive = np.ones(len(user), dtype=bool)
    while True:
        enough_user = np.bincount(user[alive], minlength=int(user.max(initial=0)) + 1) >= k
        enough_item = np.bincount(item[alive], minlength=int(item.max(initial=0)) + 1) >= k
        smaller = alive & enough_user[user] & enough_item[item]
        if smaller.sum() == alive.sum():
            return alive
        alive = smaller
