"""The simple baselines that stand beside every model: popularity, recency, item-kNN, title words, unseen items.

They may look at the training interactions, the titles and the row's own history, at nothing else. A model that loses to
one of them is not news, it is a bug or a leak.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recalign.api import INVALID, Catalogue, Predictions, Row
from recalign.data.vectors import cooccurrence, tfidf
from recalign.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from recalign.data.dataset import PreparedDataset

DECAY = 0.8  # weight of a history item, per step of age
WINDOW = 20  # item-kNN: how many steps apart two items of a sequence may be
RECENT = 5000  # recent popularity: how many training interactions before the row's time count
BATCH_CELLS = 4_000_000  # scores held in memory at a time

Scorer = Callable[[Sequence[Row]], np.ndarray]
"""Scores every item for B rows: float64 [B, I], higher is better."""


@dataclass(frozen=True)
class Training:
    """What a baseline may look at.

    Args:
        catalogue: the items, with titles and training popularity.
        users: [E] user of each training interaction, sorted by user and then time.
        items: [E] item of each.
        timestamps: [E] time of each.
        seed: for the random pick.
    """

    catalogue: Catalogue
    users: np.ndarray
    items: np.ndarray
    timestamps: np.ndarray
    seed: int = 0

    @classmethod
    def of(cls, dataset: PreparedDataset, seed: int = 0) -> Training:
        """Read the training interactions of a dataset."""
        frame = dataset.interactions().sort("user_id", "timestamp", maintain_order=True)
        return cls(
            catalogue=dataset.catalogue,
            users=np.unique(frame["user_id"].to_numpy(), return_inverse=True)[1],
            items=frame["item"].to_numpy().astype(np.int64),
            timestamps=frame["timestamp"].to_numpy().astype(np.float64),
            seed=seed,
        )


def popularity(training: Training) -> Scorer:
    """Score items by their number of training interactions."""
    counts = np.bincount(training.items, minlength=len(training.catalogue)).astype(np.float64)
    return lambda rows: np.tile(counts, (len(rows), 1))


def recent_popularity(training: Training) -> Scorer:
    """Score items by how many of the last training interactions before the row's time were theirs."""
    size = len(training.catalogue)
    order = np.argsort(training.timestamps, kind="stable")
    items, times = training.items[order], training.timestamps[order]
    total = np.bincount(items, minlength=size) / max(1, len(items))  # below one count: breaks ties only

    def score(rows: Sequence[Row]) -> np.ndarray:
        ends = np.maximum(np.searchsorted(times, [row.timestamp for row in rows]), min(RECENT, len(items)))
        distinct, inverse = np.unique(ends, return_inverse=True)
        counts = [np.bincount(items[max(0, end - RECENT) : end], minlength=size) + total for end in distinct]
        return np.stack(counts)[inverse]

    return score


def item_knn(training: Training) -> Scorer:
    """Score items by their cosine similarity to the history's items in the training sequences.

    Two items of one user's sequence, d <= 20 steps apart, add 1/sqrt(d) to their similarity, which is then divided by
    the root of the product of their counts; an item of the history weighs 0.8^age.
    """
    size = len(training.catalogue)
    similar = cooccurrence(training.users, training.items, size, WINDOW, decay=0.5)
    counts = np.bincount(training.items, minlength=size)
    backing = counts / (1e9 * max(1, len(training.items)))  # popularity, where the history knows no neighbour
    return lambda rows: (_histories(rows, size) @ similar).toarray() + backing


def title_words(training: Training) -> Scorer:
    """Score items by the cosine of their title's TF-IDF vector with the history's, whose items weigh 0.8^age."""
    vectors = tfidf(training.catalogue.titles)  # [I, words]
    return lambda rows: ((_histories(rows, vectors.shape[0]) @ vectors) @ vectors.T).toarray()


def unseen(training: Training) -> Scorer:
    """Pick at random among the items that no training interaction names; then, at random, among the rest."""
    new = (np.bincount(training.items, minlength=len(training.catalogue)) == 0).astype(np.float64)

    def score(rows: Sequence[Row]) -> np.ndarray:
        draws = [np.random.default_rng((training.seed, row.index)).random(len(new)) for row in rows]
        return np.stack(draws) + new

    return score


BASELINES: dict[str, Callable[[Training], Scorer]] = {
    "popularity": popularity,
    "recent popularity": recent_popularity,
    "item-kNN": item_knn,
    "TF-IDF of titles": title_words,
    "random unseen": unseen,
}

SIMPLE = {
    "popularity": "popularity",
    "recent-popularity": "recent popularity",
    "item-knn": "item-kNN",
    "tf-idf": "TF-IDF of titles",
    "random-unseen": "random unseen",
}
"""Names that users type, and those of tables."""


def recommend(
    name: str,
    dataset: PreparedDataset,
    rows: Sequence[Row],
    size: int,
    *,
    exclude_history: bool | None = None,
    seed: int = 0,
) -> Predictions:
    """Recommend with a baseline.

    Args:
        name: one of BASELINES.
        dataset: its training interactions, titles and, by default, its rule on history items are used.
        rows: what to answer; a row with candidates is answered from these.
        size: K.
        exclude_history: whether items of the row's history are left out.
        seed: of the random pick.

    Raises:
        UserError: no such baseline.
    """
    if name not in BASELINES:
        raise UserError(f"There is no baseline '{name}'.", did_you_mean(name, BASELINES))
    exclude = dataset.excludes_history() if exclude_history is None else exclude_history
    return recommend_by(BASELINES[name](Training.of(dataset, seed)), dataset, rows, size, exclude_history=exclude)


def recommend_by(
    scorer: Scorer, dataset: PreparedDataset, rows: Sequence[Row], size: int, *, exclude_history: bool
) -> Predictions:
    """Recommend the items that a scorer likes best, some rows at a time. Arguments as in `recommend`."""
    step = max(1, BATCH_CELLS // max(1, len(dataset.catalogue)))
    parts = [
        top_items(scorer(rows[start : start + step]), rows[start : start + step], size, exclude_history=exclude_history)
        for start in range(0, len(rows), step)
    ]
    return Predictions(
        items=np.concatenate([part.items for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        lengths=np.concatenate([part.lengths for part in parts]),
    )


def top_items(scores: np.ndarray, rows: Sequence[Row], size: int, *, exclude_history: bool) -> Predictions:
    """Rank the best `size` items of each row; ties go to the lower item index.

    Args:
        scores: [B, I]; changed in place.
        rows: [B].
        size: K; a list is shorter where fewer items may be recommended.
        exclude_history: whether what the user consumed before is left out.
    """
    for place, row in enumerate(rows):
        if row.candidates is not None:
            others = np.ones(scores.shape[1], dtype=bool)
            others[row.candidates] = False
            scores[place, others] = -np.inf
        if exclude_history:
            scores[place, row.consumed] = -np.inf
    wide = min(size, scores.shape[1])
    # Everything that reaches the K-th best score is kept, so that a tie there is broken by index, not by chance.
    threshold = -np.partition(-scores, wide - 1, axis=1)[:, wide - 1]
    items = np.full((len(rows), size), INVALID, dtype=np.int64)
    values = np.zeros((len(rows), size))
    lengths = np.zeros(len(rows), dtype=np.int64)
    for place, bar in enumerate(threshold):
        reached = np.flatnonzero((scores[place] >= bar) & (scores[place] > -np.inf))
        best = reached[np.argsort(-scores[place, reached], kind="stable")[:size]]
        items[place, : len(best)], values[place, : len(best)] = best, scores[place, best]
        lengths[place] = len(best)
    return Predictions(items, values, lengths)


def _histories(rows: Sequence[Row], size: int) -> csr_array:
    """Weights of the histories' items, DECAY^age: sparse [B, I]."""
    from scipy.sparse import csr_array

    lengths = [len(row.history) for row in rows]
    weights = np.concatenate([DECAY ** np.arange(length - 1, -1, -1) for length in lengths] or [np.empty(0)])
    items = np.concatenate([row.history for row in rows] or [np.empty(0, dtype=np.int64)])
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    matrix = csr_array((weights, items, bounds), shape=(len(rows), size))
    matrix.sum_duplicates()
    return matrix
