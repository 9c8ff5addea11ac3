"""mmr: another decoder's titles, re-ranked so that each is relevant and unlike those above it."""

from __future__ import annotations

import numpy as np
from recalign_rerank import Gain, Reranker, RerankParams, relevance

from recalign.api import Decoder, Engine, Field, Row, hookimpl


class MmrParams(RerankParams):
    """Parameters of mmr."""

    trade_off: float = Field(0.7, ge=0, le=1, description="lambda: weight of relevance; the rest is of unlikeness")


class Mmr(Reranker):
    """At every position argmax_i lambda rel(i) - (1 - lambda) max_{j above} sim(i, j); max over none is 0.

    rel is the inner decoder's score, brought to [0, 1] within the pool; sim is the cosine of the items' genres, 0 for
    items without any.

    Source: Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking for Reordering Documents and Producing
    Summaries", SIGIR 1998.
    """

    Params = MmrParams
    paper = "Carbonell and Goldstein, SIGIR 1998"

    def gain(self, engine: Engine, row: Row, items: np.ndarray, scores: np.ndarray) -> Gain:
        """Return what each item adds to a list."""
        genres = engine.catalogue.genre_matrix[items]
        norms = np.sqrt((genres**2).sum(axis=1, keepdims=True))
        unit = genres / np.where(norms > 0, norms, 1.0)
        similarity, relevant, weight = unit @ unit.T, relevance(scores), self.params.trade_off

        def added(chosen: list[int]) -> np.ndarray:
            nearest = similarity[:, chosen].max(axis=1) if chosen else np.zeros(len(items))
            return weight * relevant - (1 - weight) * nearest

        return added


@hookimpl
def recalign_decoder() -> type[Decoder]:
    """Return the plugin class to recalign."""
    return Mmr
