"""What a system made of one row: the user's history, the ranked list with scores and rationales, and what came next."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import numpy as np

from recalign.api import Catalogue, Predictions, Row
from recalign.runs.predictions import described_list
from recalign.text.question_prompts import FIRST_DATE


def explain_row(predictions: Predictions, place: int, row: Row, catalogue: Catalogue) -> dict[str, Any]:
    """Gather what `recalign explain` shows of one row.

    Args:
        predictions: U lists.
        place: which of them.
        row: that it answers.
        catalogue: the items.

    Returns:
        A JSON-serialisable table: row, user_id, profile, history (oldest first; when and rating where the dataset has
        them), targets with their gains and the place in the list that each got (from 1, None: it is not there), and
        the list, best first, with scores and rationales.
    """
    positions = described_list(predictions, place, catalogue)
    gains = dict(zip(row.targets.tolist(), row.gains.tolist(), strict=True))
    ranks = {each["item"]: each["rank"] for each in reversed(positions)}
    return {
        "row": row.index,
        "user_id": row.user_id,
        "profile": row.profile,
        "history": [_event(row, each, catalogue) for each in range(len(row.history))],
        "targets": [
            {**catalogue.describe(item), "gain": gain, "rank": ranks.get(item)} for item, gain in gains.items()
        ],
        "list": [
            {**each, "target": gains.get(each["item"], 0.0) > 0, "in_history": each["item"] in row.history}
            for each in positions
        ],
    }


def _event(row: Row, place: int, catalogue: Catalogue) -> dict[str, Any]:
    """One item of the history."""
    when = rating = None
    if row.times is not None and row.times[place] >= FIRST_DATE:
        when = datetime.fromtimestamp(row.times[place], timezone.utc).date().isoformat()
    if row.ratings is not None and np.isfinite(row.ratings[place]):
        rating = float(row.ratings[place])
    return {**catalogue.describe(int(row.history[place])), "when": when, "rating": rating}
