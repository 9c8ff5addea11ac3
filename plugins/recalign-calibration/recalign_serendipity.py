"""serendipity@k: share of the list that the user chose and popularity would not have named (higher is better)."""

from __future__ import annotations

import numpy as np

from recalign.api import Catalogue, Field, Metric, Params, Row, hookimpl


class SerendipityParams(Params):
    """Parameters of the metric serendipity."""

    expected: int = Field(20, ge=0, description="how many of the most popular items anybody would expect")


class Serendipity(Metric):
    """|{i in L : i relevant, i not expected}| / |L|; the expected items are the most popular ones.

    A repeated item counts once, text that is no item never; both take their positions. An empty list scores 0. Items of
    equal popularity are expected in the order of the catalogue.

    Source: Ge, Delgado-Battenfeld and Jannach, "Beyond Accuracy: Evaluating Recommender Systems by Coverage and
    Serendipity", RecSys 2010, SRDP; usefulness is relevance, the primitive recommender is popularity.
    """

    Params = SerendipityParams
    paper = "Ge et al., RecSys 2010"
    reads = frozenset({"popularity", "targets"})

    def bind(self, catalogue: Catalogue, cutoff: int | None = None) -> None:
        """Attach the catalogue and find the expected items."""
        super().bind(catalogue, cutoff)
        self.expected = np.argsort(-catalogue.popularity, kind="stable")[: self.params.expected]

    def score_one(self, items: np.ndarray, row: Row) -> float:
        """Return the value of one list: items [K]."""
        hits = np.setdiff1d(np.intersect1d(items, row.relevant), self.expected)
        return len(hits) / max(len(items), 1)


@hookimpl
def recalign_metric() -> type[Metric]:
    """Return the plugin class to recalign."""
    return Serendipity
