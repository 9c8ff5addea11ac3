"""Greedy decoding: the most probable valid token at every step, one list per row."""

from __future__ import annotations

from collections.abc import Sequence

from recalign.api import Decoder, Engine, Field, Predictions, Row, hookimpl
from recalign.decoders.lists import ListParams, as_predictions, writable_length


class GreedyParams(ListParams):
    """Parameters of `greedy`."""

    constrained: bool = Field(True, description="follow the trie; false writes free text, to see what it is worth")


class Greedy(Decoder):
    """Greedy decoding; BLADE evaluates with it."""

    Params = GreedyParams

    def decode(self, engine: Engine, rows: Sequence[Row], size: int) -> Predictions:
        """Write one list per row; one title on the next task."""
        found = engine.greedy(
            rows,
            list_length=writable_length(engine, size, self.name),
            repetition_penalty=self.params.repetition_penalty,
            constrained=self.params.constrained,
        )
        return as_predictions(found.items.numpy())


@hookimpl
def recalign_decoder() -> type[Decoder]:
    """Return the plugin class to recalign."""
    return Greedy
