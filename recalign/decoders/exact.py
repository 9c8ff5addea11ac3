"""The true top-K titles by best-first search over the trie (next task)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from recalign.api import Decoder, Engine, Field, Params, Predictions, Row, hookimpl
from recalign.decoders.lists import scored_predictions


class ExactParams(Params):
    """Parameters of `exact`."""

    scoring: Literal["renormalised", "full"] = Field(
        "renormalised", description="log-probabilities over the trie's valid tokens, or over the whole vocabulary"
    )
    breadth: int | None = Field(
        None, ge=1, description="prefixes opened at a time (default: the number of items); changes the speed only"
    )


class Exact(Decoder):
    """The K most probable titles, with a proof: what a beam misses of them is its pruning (BEAR Fig. 6)."""

    tasks: ClassVar[frozenset[str]] = frozenset({"next"})

    proven = True

    Params = ExactParams

    @property
    def ranks_by(self) -> str:
        """What a beam ranks by that has no length penalty."""
        return f"{self.params.scoring} log-probability"

    def decode(self, engine: Engine, rows: Sequence[Row], size: int) -> Predictions:
        """Find `size` titles per row; the nodes that it opened are counted in the engine's cost."""
        items, scores, _ = engine.exact(rows, size=size, scoring=self.params.scoring, breadth=self.params.breadth)
        return scored_predictions(items, scores)


@hookimpl
def recalign_decoder() -> type[Decoder]:
    """Return the plugin class to recalign."""
    return Exact
