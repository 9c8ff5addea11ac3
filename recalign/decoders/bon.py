"""Best of N: sample N lists per row and keep the best by a reward."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recalign.api import INVALID, Decoder, Engine, Field, ListBatch, Predictions, Row, UserError, hookimpl
from recalign.api import Params as AnyParams
from recalign.decoders.lists import SampledListParams, as_predictions, writable_length

ROUNDING = 1e-12
"""Rewards that differ by less than this share of the largest of them differ by rounding."""


class BestOfNParams(SampledListParams):
    """Parameters of `bon`."""

    n: int = Field(4, ge=1, description="lists sampled per row, N; 1 equals `sample`")
    reward: str = Field("ild", description="reward expression that picks the list, such as ild or ndcg@5")
    allow_oracle: bool = Field(False, description="allow a reward that reads the targets (ndcg, recall)")


class BestOfN(Decoder):
    """Best of N. With a reward that reads the targets it is an oracle: an upper bound, no recommender."""

    paper = "BLADE (Chen et al., SIGIR 2026), Table 1"

    Params = BestOfNParams

    def __init__(self, params: AnyParams | None = None, *, name: str = "") -> None:
        from recalign.metrics.expression import parse_expression

        super().__init__(params, name=name)
        self.reward = parse_expression(self.params.reward)
        if self.oracle and not self.params.allow_oracle:
            raise UserError(
                f"The reward '{self.params.reward}' reads the targets: best of N by it is an oracle.",
                "Pass -p allow_oracle=true to measure that upper bound, or pick by a reward such as ild.",
            )

    @property
    def oracle(self) -> bool:
        """Whether the reward reads the targets."""
        return "targets" in self.reward.reads

    def decode(self, engine: Engine, rows: Sequence[Row], size: int) -> Predictions:
        """Sample N lists per row and keep the first of the best; the first one where the reward is not defined."""
        count = self.params.n
        found = engine.sample(
            rows,
            group_size=count,
            list_length=writable_length(engine, size, self.name),
            temperature=self.params.temperature,
            repetition_penalty=self.params.repetition_penalty,
            seed=engine.seed,
        )
        items = found.items.numpy()
        self.reward.bind(engine.catalogue)
        defined = np.array([self.reward.defined_for(row) for row in rows])
        scores = np.zeros((len(rows), count))
        if defined.any():
            asked = np.repeat(defined, count)
            lists = ListBatch(
                items=items[asked],
                lengths=(items[asked] != INVALID).sum(axis=1),
                rows=[row for row, ask in zip(rows, defined, strict=True) for _ in range(count * ask)],
                groups=np.repeat(np.arange(len(rows)), count)[asked],
                logps=found.logps.sum(dim=1).double().numpy()[asked],
            )
            scores[defined] = self.reward.score(lists).reshape(-1, count)
        best = np.arange(len(rows)) * count + first_best(scores)
        return as_predictions(items[best])


def first_best(scores: np.ndarray) -> np.ndarray:
    """[U] where each row of scores [U, N] is highest; of values that are equal but for rounding, the first."""
    width = ROUNDING * np.abs(scores).max(axis=1, keepdims=True)
    return (scores >= scores.max(axis=1, keepdims=True) - width).argmax(axis=1)


@hookimpl
def recalign_decoder() -> type[Decoder]:
    """Return the plugin class to recalign."""
    return BestOfN
