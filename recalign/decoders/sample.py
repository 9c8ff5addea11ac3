"""Sampling: one list per row, drawn from the model's distribution over lists."""

from __future__ import annotations

from collections.abc import Sequence

from recalign.api import Decoder, Engine, Field, Predictions, Row, hookimpl
from recalign.decoders.lists import SampledListParams, as_predictions, writable_length


class SampleParams(SampledListParams):
    """Parameters of `sample`."""

    constrained: bool = Field(True, description="follow the trie; false writes free text, to see what it is worth")


class Sample(Decoder):
    """Sampling with the run's seed; a row's list does not depend on the rows beside it."""

    Params = SampleParams

    def decode(self, engine: Engine, rows: Sequence[Row], size: int) -> Predictions:
        """Sample one list per row; one title on the next task."""
        found = engine.sample(
            rows,
            group_size=1,
            list_length=writable_length(engine, size, self.name),
            temperature=self.params.temperature,
            repetition_penalty=self.params.repetition_penalty,
            seed=engine.seed,
            constrained=self.params.constrained,
        )
        return as_predictions(found.items.numpy())


@hookimpl
def recalign_decoder() -> type[Decoder]:
    """Return the plugin class to recalign."""
    return Sample
