"""What a system made of one row: the user's history, the ranked list with scores and rationales, and what came next."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import numpy as np

from recalign.api import INVALID, Catalogue, Predictions, Row
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
    length = int(predictions.lengths[place])
    items = predictions.items[place, :length].tolist()
    gains = dict(zip(row.targets.tolist(), row.gains.tolist(), strict=True))
    ranks = {item: rank for rank, item in reversed(list(enumerate(items, 1)))}
    return {
        "row": row.index,
        "user_id": row.user_id,
        "profile": row.profile,
        "history": [_event(row, each, catalogue) for each in range(len(row.history))],
        "targets": [{**_item(item, catalogue), "gain": gain, "rank": ranks.get(item)} for item, gain in gains.items()],
        "list": [
            {
                "rank": rank,
                **_item(item, catalogue),
                "score": float(predictions.scores[place, rank - 1]),
                "target": gains.get(item, 0.0) > 0,
                "in_history": item in row.history,
                "rationale": None if predictions.rationales is None else str(predictions.rationales[place, rank - 1]),
            }
            for rank, item in enumerate(items, 1)
        ],
    }


def _event(row: Row, place: int, catalogue: Catalogue) -> dict[str, Any]:
    """One item of the history."""
    when = rating = None
    if row.times is not None and row.times[place] >= FIRST_DATE:
        when = datetime.fromtimestamp(row.times[place], timezone.utc).date().isoformat()
    if row.ratings is not None and np.isfinite(row.ratings[place]):
        rating = float(row.ratings[place])
    return {**_item(int(row.history[place]), catalogue), "when": when, "rating": rating}


def _item(item: int, catalogue: Catalogue) -> dict[str, Any]:
    """An item, by index; text that names none has no id and no title."""
    if item == INVALID:
        return {"item": item, "item_id": None, "title": None, "genres": []}
    return {
        "item": item,
        "item_id": catalogue.item_ids[item],
        "title": catalogue.titles[item],
        "genres": list(catalogue.genres[item]),
    }
