"""Lets the model write the order of a row's candidates, all of which its prompt shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from recalign.api import INVALID, Decoder, Engine, Field, Predictions, Row, first_positions, hookimpl
from recalign.decoders.lists import ListParams
from recalign.tasks.rank import candidates_of, ranked


class ListOrderParams(ListParams):
    """Parameters of `list`."""

    constrained: bool = Field(
        True, description="write titles of the candidates only, each once; false writes free text and matches titles"
    )


class ListOrder(Decoder):
    """Writes the titles of a row's candidates greedily, best first: every answer is a permutation of them.

    Free text (`constrained=false`) ranks the candidates in the order in which it first names them; those that it does
    not name follow in an order that is drawn for the row.

    Source: "Reasoning to Rank", the untrained list prompt (DeepSeek-R1's row). Its wording and its parsing are not
    known; ours is constrained decoding.
    """

    Params = ListOrderParams
    tasks: ClassVar[frozenset[str]] = frozenset({"rank"})

    def decode(self, engine: Engine, rows: Sequence[Row], size: int) -> Predictions:
        """Rank the candidates of each row; a position's score is how many positions come below it."""
        items = candidates_of(rows)
        written: list[np.ndarray] = [np.zeros(0, dtype=np.int64)] * len(rows)
        counts = np.array([len(each) for each in items])
        for count in np.unique(counts):
            mine = np.flatnonzero(counts == count).tolist()
            found = engine.greedy(
                [rows[row] for row in mine],
                list_length=int(count),
                repetition_penalty=self.params.repetition_penalty,
                constrained=self.params.constrained,
            ).items.numpy()
            for row, names in zip(mine, found, strict=True):
                named = np.where(np.isin(names, items[row]), names, INVALID)
                written[row] = named[first_positions(named[None])[0] & (named != INVALID)]
        scores = [_scores(order, each) for order, each in zip(written, items, strict=True)]
        return ranked(rows, items, np.concatenate(scores), seed=engine.seed, size=size)


def _scores(order: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Score each item by how many follow the place at which it was named; 0 where it was not."""
    place = {int(item): place for place, item in enumerate(order)}
    return np.array([len(items) - place.get(int(item), len(items)) for item in items], dtype=np.float64)


@hookimpl
def recalign_decoder() -> type[Decoder]:
    """Return the plugin class to recalign."""
    return ListOrder
