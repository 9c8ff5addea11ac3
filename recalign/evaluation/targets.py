"""Warm and cold targets: those that some training interaction names, and those that none does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from recalign.api import Catalogue, Predictions, Row
from recalign.errors import UserError

Targets = Literal["all", "warm", "cold"]


def counting(
    targets: Targets, predictions: Predictions, rows: Sequence[Row], catalogue: Catalogue
) -> tuple[Predictions, list[Row]]:
    """Let only some targets count; rows that have none of them are left out.

    Args:
        targets: warm: with training interactions; cold: without.
        predictions: U lists.
        rows: [U] what they answer.
        catalogue: counts training interactions.

    Raises:
        UserError: no row has such a target.
    """
    if targets == "all":
        return predictions, list(rows)
    seen = catalogue.popularity > 0
    chosen = [np.flatnonzero(seen[row.targets] == (targets == "warm")) for row in rows]
    kept = [place for place, index in enumerate(chosen) if len(index)]
    if not kept:
        raise UserError(f"None of the {len(rows)} rows has a {targets} target.", "Leave out --targets.")
    some = [
        replace(rows[place], targets=rows[place].targets[chosen[place]], gains=rows[place].gains[chosen[place]])
        for place in kept
    ]
    lists = Predictions(predictions.items[kept], predictions.scores[kept], predictions.lengths[kept])
    return lists, some
