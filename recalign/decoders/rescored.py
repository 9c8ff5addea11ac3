"""What decoders that rescore valid tokens share: their search over titles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from recalign.api import Field, Params, Predictions, Rescorer, Row, UserError
from recalign.decoders.lists import scored_predictions

if TYPE_CHECKING:
    from recalign.decoding.engine import Engine


class SearchParams(Params):
    """How a decoder searches titles by renormalised, rescored log-probabilities without length penalty."""

    search: Literal["beam", "exact"] = Field("beam", description="a beam, or the true best titles by these scores")
    width: int | None = Field(None, ge=1, description="beams a row, B (default: the number of items asked for)")


def search_titles(
    engine: Engine, rows: Sequence[Row], size: int, params: SearchParams, rescorer: Rescorer | None
) -> Predictions:
    """Search `size` titles a row.

    Raises:
        UserError: a width for exact search, or one below `size`.
    """
    if params.search == "beam":
        items, scores = engine.beam(rows, width=params.width or size, size=size, rescorer=rescorer)
    elif params.width is not None:
        raise UserError("Exact search has no width.", "Leave width out, or search with a beam.")
    else:
        items, scores, _ = engine.exact(rows, size=size, rescorer=rescorer)
    return scored_predictions(items, scores)
