"""Embeddings of items projected from their text, or from vectors of the user's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recalign.api import Backbone, Catalogue, Field, Params, hookimpl, item_vectors, truncated_svd


class ItemVectorsParams(Params):
    """Parameters of `item-vectors`."""

    embeddings: str | None = Field(
        None,
        description="file with one vector per item, such as a collaborative model's: .parquet with item_id and "
        "embedding, or .npz with these arrays (default: TF-IDF of title, genres and text)",
    )
    dimensions: int = Field(64, ge=1, description="maximum number of dimensions, D; wider vectors are cut by an SVD")


class ItemVectors(Backbone):
    """x_i = W v_i + b, where v_i is item i's vector and W, b are trained.

    Vectors are scaled to length sqrt(D), so that their entries have a mean square of 1.
    """

    Params = ItemVectorsParams

    @property
    def files(self) -> list[Path]:
        """The embedding file."""
        return [] if self.params.embeddings is None else [Path(self.params.embeddings)]

    def vectors(self, catalogue: Catalogue) -> np.ndarray:
        """Return the vectors [I, D]; an item without words has the vector 0."""
        rows = item_vectors(catalogue, *self.files)
        wide = rows.shape[1] > self.params.dimensions
        vectors = truncated_svd(rows, self.params.dimensions, seed=0) if wide else rows.toarray()
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(norms > 0, norms, 1.0) * vectors.shape[1] ** 0.5


@hookimpl
def recalign_backbone() -> type[Backbone]:
    """Return the plugin class to recalign."""
    return ItemVectors
