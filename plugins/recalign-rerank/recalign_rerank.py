"""What the re-ranking decoders share: the pool of another decoder's titles, and the greedy choice among them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import numpy as np

from recalign.api import INVALID, Decoder, Engine, Field, Params, Predictions, Row, UserError

Gain = Callable[[list[int]], np.ndarray]
"""Maps the places in the pool that were chosen to what each place would add: float64 [N]."""


class RerankParams(Params):
    """Parameters of all re-ranking decoders."""

    decoder: str = Field("beam", description="decoder whose titles are re-ranked, with its default parameters")
    pool: int = Field(40, ge=1, description="how many of its titles to choose from; never fewer than the list has")


class Reranker(Decoder):
    """Chooses a list greedily from another decoder's titles; positions are scored by what they added."""

    Params = RerankParams
    tasks = frozenset({"next"})

    @abstractmethod
    def gain(self, engine: Engine, row: Row, items: np.ndarray, scores: np.ndarray) -> Gain:
        """Return what says how much each of N items of the pool adds to a list; no item adds more to a longer list.

        Args:
            engine: with the catalogue.
            row: that is answered.
            items: [N] the pool.
            scores: [N] float64 of the inner decoder, higher is better.
        """

    def decode(self, engine: Engine, rows: Sequence[Row], size: int) -> Predictions:
        """Recommend `size` items for each row."""
        pool = self._pool(engine, rows, size)
        items = np.full((len(rows), size), INVALID)
        scores, lengths = np.zeros((len(rows), size)), np.zeros(len(rows), dtype=np.int64)
        for place, row in enumerate(rows):
            found = pool.items[place, : pool.lengths[place]]
            kept = found != INVALID
            found, marks = found[kept], pool.scores[place, : pool.lengths[place]][kept]
            chosen, gains = choose(self.gain(engine, row, found, marks), len(found), size)
            lengths[place] = len(chosen)
            items[place, : len(chosen)], scores[place, : len(chosen)] = found[chosen], gains
        return Predictions(items, scores, lengths)

    def _pool(self, engine: Engine, rows: Sequence[Row], size: int) -> Predictions:
        from recalign.python import create_plugin

        inner: Decoder = create_plugin("decoder", self.params.decoder)
        if isinstance(inner, Reranker):
            raise UserError(f"{self.name}: decoder = '{inner.name}' re-ranks itself.", "Name beam, exact or another.")
        if engine.task not in inner.tasks:
            raise UserError(f"{self.name}: decoder = '{inner.name}' does not serve the task '{engine.task}'.")
        left = min(len(engine.catalogue) - len(excluded) for excluded in engine.excluded_by(rows))
        return inner.decode(engine, rows, max(size, min(self.params.pool, left)))


def choose(gain: Gain, count: int, size: int) -> tuple[list[int], list[float]]:
    """Choose greedily: at every position the place that adds most, of equal ones the first.

    Args:
        gain: what each place adds to those chosen.
        count: N, the places.
        size: K.

    Returns:
        The places chosen, min(N, K), and what each added.
    """
    chosen: list[int] = []
    gains: list[float] = []
    free = np.ones(count, dtype=bool)
    for _ in range(min(count, size)):
        values = np.where(free, gain(chosen), -np.inf)
        best = int(values.argmax())
        free[best] = False
        chosen.append(best)
        gains.append(float(values[best]))
    return chosen, gains


def relevance(scores: np.ndarray) -> np.ndarray:
    """Bring scores to [0, 1] within their pool: float64 [N]; 1 where all are equal."""
    if not len(scores):
        return scores
    low, high = scores.min(), scores.max()
    return (scores - low) / (high - low) if high > low else np.ones(len(scores))
