"""xquad: another decoder's titles, re-ranked so that the list covers the genres that the user likes."""

from __future__ import annotations

import numpy as np
from recalign_rerank import Gain, Reranker, RerankParams, relevance

from recalign.api import Decoder, Engine, Field, Row, hookimpl


class XquadParams(RerankParams):
    """Parameters of xquad."""

    trade_off: float = Field(0.3, ge=0, le=1, description="lambda: weight of coverage; the rest is of relevance")


class Xquad(Reranker):
    """At every position argmax_i (1 - lambda) P(i|u) + lambda sum_g P(g|u) P(i|g) prod_{j above} (1 - P(j|g)).

    P(i|u) is the inner decoder's score, brought to [0, 1] within the pool; P(g|u) the genre's share of the history;
    P(i|g) is 1/m for each of an item's m genres, else 0. Without genres in the history, relevance decides alone.

    Source: Santos, Macdonald and Ounis, "Exploiting Query Reformulations for Web Search Result Diversification", WWW
    2010, Eq. 1 to 4, with genres as aspects.
    """

    Params = XquadParams
    paper = "Santos et al., WWW 2010"

    def gain(self, engine: Engine, row: Row, items: np.ndarray, scores: np.ndarray) -> Gain:
        """Return what each item adds to a list."""
        genres = engine.catalogue.genre_matrix
        shares = genres / np.maximum(genres.sum(axis=1, keepdims=True), 1.0)  # [I, C] P(i|g)
        liked = shares[row.history].sum(axis=0)
        liked = liked / (liked.sum() or 1.0)  # [C] P(g|u)
        covers, relevant, weight = shares[items], relevance(scores), self.params.trade_off

        def added(chosen: list[int]) -> np.ndarray:
            left = (1.0 - covers[chosen]).prod(axis=0)  # [C], 1 where nothing is chosen
            return (1 - weight) * relevant + weight * covers @ (liked * left)

        return added


@hookimpl
def recalign_decoder() -> type[Decoder]:
    """Return the plugin class to recalign."""
    return Xquad
