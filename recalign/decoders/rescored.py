"""What decoders that rescore valid tokens share: their search over titles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from recalign.api import Engine, Field, Params, Predictions, Rescorer, Row, UserError
from recalign.decoders.lists import scored_predictions


class SearchParams(Params):
    """How a decoder searches titles by rescored log-probabilities."""

    scoring: Literal["renormalised", "full"] = Field(
        "renormalised",
        description="what is rescored: log-probabilities over the trie's valid tokens, so that forced tokens add "
        "nothing, or over the whole vocabulary, where forced tokens add theirs (as the official code's)",
    )
    length_penalty: float = Field(0.0, description="divide scores by length ** this, as `beam` does; a beam's only")
    search: Literal["beam", "exact"] = Field("beam", description="a beam, or the true best titles by these scores")
    width: int | None = Field(None, ge=1, description="beams per row, B (default: the number of items asked for)")


def search_titles(
    engine: Engine, rows: Sequence[Row], size: int, params: SearchParams, rescorer: Rescorer | None
) -> Predictions:
    """Search `size` titles per row.

    Raises:
        UserError: a width or a length penalty for exact search, or a width below `size`.
    """
    if params.search == "beam":
        items, scores = engine.beam(
            rows,
            width=params.width or size,
            size=size,
            scoring=params.scoring,
            length_penalty=params.length_penalty,
            rescorer=rescorer,
        )
    elif params.width is not None:
        raise UserError("Exact search has no width.", "Leave width out, or search with a beam.")
    elif params.length_penalty != 0:
        raise UserError(
            f"Exact search has no length penalty (here {params.length_penalty:g}): prefixes would bound no titles.",
            "Leave length_penalty out, or search with a beam.",
        )
    else:
        items, scores, _ = engine.exact(rows, size=size, scoring=params.scoring, rescorer=rescorer)
    return scored_predictions(items, scores)
