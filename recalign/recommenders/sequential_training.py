"""Training of SASRec and BERT4Rec with early stopping."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from recalign import console, threads
from recalign.api import TrainingData
from recalign.errors import UserError
from recalign.recommenders.recommend import top_items
from recalign.recommenders.sequential_model import SequentialModel, device
from recalign.recommenders.sequential_params import SequentialParams


def train_sequential(
    data: TrainingData, params: SequentialParams, seed: int, *, title: str, masked_share: float | None = None
) -> tuple[SequentialModel, dict[str, float]]:
    """Train on users' sequences of training interactions; the epoch that is best on validation rows is retained.

    Args:
        data: the training interactions, and validation rows for early stopping.
        params: size and training.
        seed: of weights, dropout, hidden items and the order of sequences.
        title: for the progress bar.
        masked_share: as of `SequentialModel`.

    Returns:
        The model, and how training went: the retained `epoch` (from 1), `epochs` done, validation `ndcg@10` of the
        retained one.

    Raises:
        UserError: no user has two training interactions; sizes that do not fit.
    """
    sequences = _sequences(data, params.history)
    if not sequences:
        raise UserError("No user of the dataset has two training interactions: nothing follows anything.")
    place = device()
    if place == "cpu":
        threads.use(small=True)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        model = SequentialModel(len(data.catalogue), params, masked_share=masked_share).to(place)
        figures = _fit(model, title, sequences, np.random.default_rng(seed), lambda: _validate(model, data))
    return model, figures


def _sequences(data: TrainingData, history: int) -> list[np.ndarray]:
    """Users' sequences cut from behind into pieces of `history` items and one more, which is the next one's first."""
    bounds = np.flatnonzero(np.diff(data.users, prepend=-1, append=-1))
    pieces = []
    for start, end in zip(bounds, bounds[1:], strict=False):
        for stop in range(end, start + 1, -history):
            pieces.append(data.items[max(start, stop - history - 1) : stop])
    return [piece for piece in pieces if len(piece) > 1]


def _batches(sequences: Sequence[np.ndarray], size: int, generator: np.random.Generator) -> Iterator[list[np.ndarray]]:
    """Batches of sequences of like length, in random order."""
    order = generator.permutation(len(sequences))
    order = order[np.argsort([len(sequences[i]) for i in order], kind="stable")]
    for start in generator.permutation(np.arange(0, len(order), size)):
        yield [sequences[i] for i in order[start : start + size]]


def _fit(
    model: SequentialModel,
    title: str,
    sequences: Sequence[np.ndarray],
    generator: np.random.Generator,
    validate: Callable[[], float],
) -> dict[str, float]:
    """Train in place with early stopping; return the figures of the fit."""
    params = model.params
    optimiser = torch.optim.Adam(model.parameters(), lr=params.learning_rate)
    best, best_weights, waited = -1.0, copy.deepcopy(model.state_dict()), 0
    figures: dict[str, float] = {}
    with console.progress(title, params.epochs) as advance:
        for epoch in range(1, params.epochs + 1):
            model.train()
            for batch in _batches(sequences, params.batch_size, generator):
                loss = model.loss(batch, generator)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            value, waited = validate(), waited + 1
            advance(1, note=f"loss {loss.item():.3f}  ndcg@10 {value:.4f}")
            if value > best:
                best, best_weights, waited = value, copy.deepcopy(model.state_dict()), 0
            figures = {"epoch": epoch - waited, "epochs": epoch, "ndcg@10": best}
            if waited >= params.patience:
                break
    model.load_state_dict(best_weights)
    return figures


def _validate(model: SequentialModel, data: TrainingData) -> float:
    """Mean ndcg@10 with one relevant item each (the first target) over the first validation rows."""
    rows = data.validation()[: model.params.valid_rows]
    found = top_items(model.scores(rows), rows, 10, exclude_history=data.exclude_history).items
    hits = found == np.array([[row.targets[0]] for row in rows])
    return float((hits / np.log2(np.arange(2, 12))).sum(axis=1).mean())
