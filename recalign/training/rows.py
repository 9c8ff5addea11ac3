"""Which rows are trained on, validated on and reported on, where not all of them are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from recalign import console

if TYPE_CHECKING:
    from recalign.api import Row
    from recalign.models.policy import Policy

VALIDATED = 512
"""Validation rows of a model that is cheap to run."""
CHEAP = {"cpu": 10_000_000}
"""Device -> parameters of a model that is cheap to run there; on any other device `CHEAP_ELSEWHERE`."""
CHEAP_ELSEWHERE = 1_000_000_000
FEWEST = 32


def drawn_rows(rows: Sequence[Row], limit: int | None, seed: int) -> Sequence[Row]:
    """Take at most so many training rows, drawn by seed, in their order; None: all."""
    if limit is None or limit >= len(rows):
        return rows
    chosen = np.random.default_rng([seed, 1]).permutation(len(rows))[:limit]
    return [rows[int(index)] for index in np.sort(chosen)]


def evenly_spaced(rows: Sequence[Row], limit: int) -> list[Row]:
    """Take at most so many rows, evenly spaced over the split."""
    count = min(limit, len(rows))
    return [rows[int(index)] for index in np.linspace(0, len(rows) - 1, count).round()]


def affordable(policy: Policy, count: int) -> int:
    """Return how many of `count` rows a model answers at about the cost of a cheap model answering all of them.

    The cost of a row goes with the number of parameters, so beyond those of a cheap model the rows become fewer in
    proportion, down to 32. It does not depend on how busy a machine is: the same command takes the same rows.
    """
    parameters = sum(parameter.numel() for parameter in policy.model.parameters())
    share = CHEAP.get(policy.device.type, CHEAP_ELSEWHERE) / max(parameters, 1)
    return count if share >= 1 else min(count, max(FEWEST, int(count * share)))


def validation_rows(policy: Policy, rows: Sequence[Row], asked: int | None) -> list[Row]:
    """Take the validation rows, and say how many they are where the model's cost decides.

    Args:
        policy: what is validated.
        rows: the validation split.
        asked: maximum number of rows; None: 512, fewer where the model is dear to run (see `affordable`).
    """
    usual = min(VALIDATED, len(rows))
    limit = affordable(policy, usual) if asked is None else asked
    if asked is None and limit < usual:
        console.say(
            f"Validation is on {limit} of {len(rows)} rows, because the model is dear to run on this "
            f"{policy.device.type}; --valid-rows says otherwise."
        )
    return evenly_spaced(rows, limit)
