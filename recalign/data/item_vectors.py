"""Vectors of items: what is said of them, what they are consumed with, or embeddings of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recalign.data.vectors import cooccurrence, tfidf
from recalign.errors import UserError
from recalign.reading import read_arrays, read_parquet, reading

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from recalign.data.catalogue import Catalogue

DIMENSIONS = 32  # of each half of the default embedding: text, co-occurrence
FORMS = "Write a .parquet file with item_id and embedding, or an .npz file with these arrays."
RIDGE = 0.1  # of the map that predicts co-occurrence from text; rows have length 1


def item_embeddings(texts: Sequence[str], users: np.ndarray, items: np.ndarray, *, seed: int) -> np.ndarray:
    """Embed items by what is said of them and by what they are consumed with, each half of equal weight.

    Text: SVD of TF-IDF vectors. Co-occurrence: SVD of the normalised co-occurrence matrix; an item without
    interactions gets what a ridge regression on the text predicts for it, so that being new is not what places it.

    Args:
        texts: [I] title, genres and other text of each item.
        users: [E] user of each training interaction, sorted by user and then time.
        items: [E] item of each.
        seed: of the SVDs' start vectors.

    Returns:
        [I, D] float64.
    """
    text = _unit_rows(truncated_svd(tfidf(texts), DIMENSIONS, seed))
    together = _unit_rows(truncated_svd(cooccurrence(users, items, len(texts)), DIMENSIONS, seed))
    known = together.any(axis=1)
    if known.any() and not known.all():
        seen = text[known]
        weights = np.linalg.solve(seen.T @ seen + RIDGE * np.eye(seen.shape[1]), seen.T @ together[known])
        together[~known] = _unit_rows(text[~known] @ weights)
    return np.concatenate([text, together], axis=1)


def read_embeddings(path: Path, item_ids: Sequence[str]) -> np.ndarray:
    """Read item embeddings of the user's own.

    Args:
        path: a `.parquet` file with the columns `item_id` and `embedding` (a list of numbers), or an `.npz` file with
            the arrays `item_id` [X] (text) and `embedding` [X, D].
        item_ids: [I] the catalogue's ids; further ids in the file are ignored.

    Returns:
        [I, D] float64.

    Raises:
        UserError: no such file, another format, items without an embedding, rows of unequal length, NaN or infinity.
    """
    path = existing_file(Path(path))
    ids, rows = _read_parquet(path) if path.suffix == ".parquet" else _read_npz(path)
    place = {item_id: index for index, item_id in enumerate(ids)}
    missing = [item_id for item_id in item_ids if item_id not in place]
    if missing:
        raise UserError(f"{path} has no embedding for {len(missing)} items, such as item {missing[0]!r}.", "Add them.")
    vectors = rows[[place[item_id] for item_id in item_ids]]
    wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(wrong):
        raise UserError(f"{path}: the embedding of item {item_ids[wrong[0]]!r} holds NaN or infinity.")
    return vectors


def item_vectors(catalogue: Catalogue, embeddings: Path | None = None) -> csr_array:
    """Return vectors of length 1 of all items, whose products are cosines (0: an item without words).

    Args:
        catalogue: the items.
        embeddings: see `read_embeddings`; by default TF-IDF of title, genres and text.

    Returns:
        [I, D] float64.

    Raises:
        UserError: as `read_embeddings`.
    """
    from scipy.sparse import csr_array

    if embeddings is not None:
        return csr_array(_unit_rows(read_embeddings(embeddings, catalogue.item_ids)))
    described = zip(catalogue.titles, catalogue.genres, catalogue.texts, strict=True)
    return tfidf([" ".join([title, *genres, text]) for title, genres, text in described])


def truncated_svd(matrix: csr_array, dimensions: int, seed: int) -> np.ndarray:
    """Project the rows of a matrix on its leading right singular vectors.

    Args:
        matrix: [I, words].
        dimensions: maximum number of singular vectors.
        seed: of the start vector.

    Returns:
        [I, D] float64, D at most `dimensions`; columns of (nearly) no variance are 0.
    """
    from scipy.sparse.linalg import svds

    small = min(matrix.shape)
    if small <= 2 * dimensions:
        left, values, _ = np.linalg.svd(matrix.toarray(), full_matrices=False)
        left, values = left[:, :dimensions], values[:dimensions]
    else:
        start = np.random.default_rng(seed).standard_normal(small)
        left, values, _ = svds(matrix, k=dimensions, v0=start)
        left, values = left[:, ::-1], values[::-1]
    return left * np.where(values > 1e-9 * max(values.max(initial=0.0), 1.0), values, 0.0)


def existing_file(path: Path) -> Path:
    """Return the path of an embedding file.

    Raises:
        UserError: there is none.
    """
    if not path.is_file():
        raise UserError(f"The embedding file {path} does not exist.", "Mend the path, or leave it out.")
    return path


def _unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1; rows of (nearly) nothing become 0."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 1e-9)


def _read_parquet(path: Path) -> tuple[list[str], np.ndarray]:
    """Ids [X] and embeddings [X, D]."""
    import polars as pl

    frame = read_parquet(path, FORMS)
    if not {"item_id", "embedding"} <= set(frame.columns):
        raise UserError(
            f"{path} has the columns {', '.join(frame.columns)}; `item_id` and `embedding` are needed.", "Rename them."
        )
    with reading(path, FORMS, "cannot be read as item embeddings"):
        column = frame["embedding"].cast(pl.List(pl.Float64))
    lengths = column.list.len().unique().to_list()
    if len(lengths) != 1 or not lengths[0]:
        raise UserError(f"{path}: the embeddings have different lengths: {sorted(map(str, lengths))[:4]}.")
    with reading(path, FORMS, "cannot be read as item embeddings"):
        flat = column.explode().cast(pl.Float64).fill_null(float("nan")).to_numpy()
        return frame["item_id"].cast(pl.String).to_list(), flat.reshape(frame.height, lengths[0])


def _read_npz(path: Path) -> tuple[list[str], np.ndarray]:
    """Ids [X] and embeddings [X, D]."""
    arrays = read_arrays(path, "item_id", "embedding", hint=FORMS)
    with reading(path, FORMS, "cannot be read as item embeddings"):
        ids, rows = arrays["item_id"].astype(str).tolist(), arrays["embedding"].astype(np.float64)
    if rows.ndim != 2 or len(rows) != len(ids):
        raise UserError(
            f"{path}: `embedding` has shape {rows.shape}, beside {len(ids)} item ids.", "Save one row an item."
        )
    return ids, rows
