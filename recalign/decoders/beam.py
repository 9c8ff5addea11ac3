"""Trie-constrained beam search over single titles (next task)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from recalign.api import Decoder, Engine, Field, Params, Predictions, Row, hookimpl
from recalign.decoders.lists import scored_predictions


class BeamParams(Params):
    """Parameters of `beam`."""

    width: int | None = Field(None, ge=1, description="beams per row, B (default: the number of items asked for)")
    scoring: Literal["renormalised", "full"] = Field(
        "renormalised",
        description="log-probabilities over the trie's valid tokens (which MSL and BEAR train), or over the whole "
        "vocabulary (as prefix_allowed_tokens_fn decodes)",
    )
    length_penalty: float = Field(
        0.0,
        description="divide scores by length ** this; 1, transformers' default and so that of MSL's and BEAR's "
        "inference scripts, favours long titles",
    )


class Beam(Decoder):
    """Beam search: the K best titles that a beam of width B finds, no item twice, nothing outside the catalogue."""

    tasks: ClassVar[frozenset[str]] = frozenset({"next"})

    Params = BeamParams

    @property
    def ranks_by(self) -> str | None:
        """The log-probability that is scored, unless it is divided by a title's length."""
        return None if self.params.length_penalty else f"{self.params.scoring} log-probability"

    def decode(self, engine: Engine, rows: Sequence[Row], size: int) -> Predictions:
        """Search `size` titles per row; fewer where the beam finds no more."""
        items, scores = engine.beam(
            rows,
            width=self.params.width or size,
            size=size,
            scoring=self.params.scoring,
            length_penalty=self.params.length_penalty,
        )
        return scored_predictions(items, scores)


@hookimpl
def recalign_decoder() -> type[Decoder]:
    """Return the plugin class to recalign."""
    return Beam
