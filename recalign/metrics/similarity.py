"""similarity@k: cosine of the list's items with the target, by the words that describe them or by embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recalign.api import (
    Catalogue,
    Field,
    ListBatch,
    Metric,
    Params,
    Row,
    cut_lists,
    distinct_rows,
    hookimpl,
    item_vectors,
)


class SimilarityParams(Params):
    """Parameters of `similarity`."""

    embeddings: str = Field(
        "",
        description="file with an embedding for each item, .parquet or .npz (item_id, embedding); none: TF-IDF of "
        "titles, genres and texts",
    )


class Similarity(Metric):
    """Mean over positions of the cosine of the item's vector with the nearest relevant target's.

    Copies and text that is no item count 0; a row without a relevant target is left out (`defined_for`).
    """

    Params = SimilarityParams
    paper = "ReRe, semantic reward (Tan et al., 2025)"
    reads = frozenset({"targets"})

    def bind(self, catalogue: Catalogue, cutoff: int | None = None) -> None:
        """Attach the catalogue and read the vectors."""
        super().bind(catalogue, cutoff)
        self.vectors = item_vectors(catalogue, Path(self.params.embeddings) if self.params.embeddings else None)

    def score(self, lists: ListBatch) -> np.ndarray:
        """Return the values of N lists: float64 [N]."""
        heads = cut_lists(lists, self.cutoff)
        rows, index = distinct_rows(lists.rows)
        values = np.zeros(heads.items.shape)
        for place, row in enumerate(rows):
            counted = heads.counted & (index == place)[:, None]
            if len(row.relevant) and counted.any():
                items, back = np.unique(heads.items[counted], return_inverse=True)
                near = (self.vectors[items] @ self.vectors[row.relevant].T).toarray()  # [distinct items, R]
                values[counted] = near.max(axis=1)[back]
        return values.sum(axis=1) / np.maximum(heads.lengths, 1)

    def defined_for(self, row: Row) -> bool:
        """Return whether the row has a relevant target."""
        return len(row.relevant) > 0


@hookimpl
def recalign_metric() -> type[Metric]:
    """Return the plugin class to recalign."""
    return Similarity
