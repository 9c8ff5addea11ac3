"""Sparse item vectors from text and from training interactions: TF-IDF and co-occurrence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def tfidf(texts: Sequence[str]) -> csr_array:
    """Weigh words by smoothed inverse document frequency, as scikit-learn does; rows have length 1 (0: no words).

    Args:
        texts: [I].

    Returns:
        [I, words] float64.
    """
    from scipy.sparse import csr_array, diags_array

    words = [re.findall(r"\w+", text.lower()) for text in texts]
    column = {word: index for index, word in enumerate(sorted({word for text in words for word in text}))}
    place = np.repeat(np.arange(len(words)), [len(text) for text in words])
    columns = np.array([column[word] for text in words for word in text], dtype=np.int64)
    counts = csr_array((np.ones(len(columns)), (place, columns)), shape=(len(words), max(1, len(column))))
    documents = np.bincount(counts.indices, minlength=counts.shape[1])
    weighted = counts @ diags_array(np.log((1 + len(words)) / (1 + documents)) + 1)
    norms = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    return csr_array(diags_array(1.0 / np.where(norms > 0, norms, 1.0)) @ weighted)


def cooccurrence(users: np.ndarray, items: np.ndarray, size: int, window: int = 10, decay: float = 1.0) -> csr_array:
    """Count items near one another in users' sequences: d <= window steps apart add d^-decay to both orders.

    Each count is divided by the root of the product of the two items' interactions, as a cosine is.

    Args:
        users: [E] user of each interaction, sorted by user and then time.
        items: [E] item of each.
        size: I.
        window: most steps between two items.
        decay: how much less distant pairs count.

    Returns:
        [I, I] float64, symmetric.
    """
    from scipy.sparse import csr_array, diags_array

    near = csr_array((size, size))
    for step in range(1, min(window, max(len(items) - 1, 0)) + 1):
        together = users[:-step] == users[step:]
        pairs = (items[:-step][together], items[step:][together])
        near = near + csr_array((np.full(int(together.sum()), step**-decay), pairs), shape=(size, size))
    counts = np.bincount(items, minlength=size)
    scale = diags_array(1.0 / np.sqrt(np.maximum(counts, 1)))
    return csr_array(scale @ (near + near.T) @ scale)
