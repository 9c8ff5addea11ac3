"""SASRec of the library replay-rec, trained on a dataset's interactions: a conventional recommender as a baseline."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import Field

from recalign import console
from recalign.data.dataset import Row
from recalign.errors import UserError
from recalign.evaluation.baselines import Scorer, Training, top_items
from recalign.params import Params

if TYPE_CHECKING:
    from recalign.data.dataset import PreparedDataset

ITEM = "item"
INSTALL = 'pip install "recalign[baselines]"'


class SasRecParams(Params):
    """Parameters of SASRec and its training."""

    hidden: int = Field(64, ge=8, description="width of the embeddings")
    layers: int = Field(2, ge=1, description="transformer layers")
    heads: int = Field(2, ge=1, description="attention heads")
    dropout: float = Field(0.2, ge=0, lt=1, description="dropout")
    history: int = Field(50, ge=2, description="most items of a sequence that the model reads")
    epochs: int = Field(60, ge=1, description="passes over the users, at most")
    patience: int = Field(5, ge=1, description="epochs without a better validation ndcg@10 before it stops")
    batch_size: int = Field(128, ge=1, description="users an update")
    learning_rate: float = Field(1e-3, gt=0, description="of Adam")
    valid_rows: int = Field(1000, ge=1, description="validation rows, the first ones")


def sasrec(dataset: PreparedDataset, params: SasRecParams, seed: int) -> Scorer:
    """Train SASRec on the training interactions; the epoch that is best on validation rows is kept.

    Cross-entropy over all items at every position of users' sequences, as in the later literature, instead of the
    paper's one sampled negative.

    Args:
        dataset: its training interactions, and validation rows for early stopping.
        params: size and training.
        seed: of weights, dropout and the order of users.

    Returns:
        Scores [B, I] of rows from their histories.

    Raises:
        UserError: replay-rec is not installed.

    Source: Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018; model code of replay-rec.
    """
    training = Training.of(dataset, seed)
    size = len(dataset.catalogue)
    sequences = _sequences(training, params.history)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(size, params)
        _fit(model, sequences, params, np.random.default_rng(seed), lambda: _validate(model, dataset, params))
    return _scorer(model, params.history, size)


def _model(size: int, params: SasRecParams) -> Any:
    """Build the module; item index `size` is the padding."""
    try:
        from replay.data import FeatureHint, FeatureType
        from replay.data.nn import TensorFeatureInfo, TensorSchema
        from replay.nn.loss import CE
        from replay.nn.sequential import SasRec
    except ImportError as error:
        raise UserError(f"The baseline sasrec needs the library replay-rec ({error}).", f"{INSTALL}.") from None
    feature = TensorFeatureInfo(
        name=ITEM,
        feature_type=FeatureType.CATEGORICAL,
        is_seq=True,
        feature_hint=FeatureHint.ITEM_ID,
        cardinality=size,
        padding_value=size,
        embedding_dim=params.hidden,
    )
    model = SasRec.from_params(
        TensorSchema(feature),
        embedding_dim=params.hidden,
        num_heads=params.heads,
        num_blocks=params.layers,
        max_sequence_length=params.history,
        dropout=params.dropout,
    )
    model.loss = CE(ignore_index=size)
    model.loss.logits_callback = model.get_logits
    return model


def _sequences(training: Training, history: int) -> list[np.ndarray]:
    """Users' sequences cut into pieces of `history` inputs with one target more; single items teach nothing."""
    bounds = np.flatnonzero(np.diff(training.users, prepend=-1, append=-1))
    pieces = []
    for start, end in zip(bounds, bounds[1:], strict=False):
        for stop in range(end, start + 1, -history):
            pieces.append(training.items[max(start, stop - history - 1) : stop])
    return [piece for piece in pieces if len(piece) > 1]


def _padded(sequences: Sequence[np.ndarray], width: int, padding: int) -> torch.Tensor:
    """[B, width] int64, the last items of each sequence at the right."""
    block = np.full((len(sequences), width), padding, dtype=np.int64)
    for place, items in enumerate(sequences):
        kept = items[-width:]
        block[place, width - len(kept) :] = kept
    return torch.from_numpy(block)


def _fit(
    model: Any,
    sequences: Sequence[np.ndarray],
    params: SasRecParams,
    generator: np.random.Generator,
    validate: Callable[[], float],
) -> None:
    """Train in place with early stopping."""
    padding = model.loss._loss.ignore_index
    optimiser = torch.optim.Adam(model.parameters(), lr=params.learning_rate)
    best, best_weights, waited = -1.0, copy.deepcopy(model.state_dict()), 0
    with console.progress("sasrec", params.epochs) as advance:
        for _ in range(params.epochs):
            model.train()
            order = generator.permutation(len(sequences))
            for start in range(0, len(order), params.batch_size):
                block = _padded(
                    [sequences[i] for i in order[start : start + params.batch_size]], params.history + 1, padding
                )
                inputs, labels = block[:, :-1], block[:, 1:, None]  # [B, L], [B, L, 1]
                present = inputs != padding
                loss = model(
                    feature_tensors={ITEM: inputs},
                    padding_mask=present,
                    positive_labels=labels,
                    negative_labels=labels[..., 0],
                    target_padding_mask=present[..., None],
                )["loss"]
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            value = validate()
            advance(1, note=f"loss {loss.item():.3f}  ndcg@10 {value:.4f}")
            waited += 1
            if value > best:
                best, best_weights, waited = value, copy.deepcopy(model.state_dict()), 0
            if waited >= params.patience:
                break
    model.load_state_dict(best_weights)


def _scorer(model: Any, history: int, size: int) -> Scorer:
    """Score rows by the logits after their last item; a row without history gets 0 everywhere."""

    @torch.no_grad()
    def score(rows: Sequence[Row]) -> np.ndarray:
        model.eval()
        inputs = _padded([row.history for row in rows], history, size)
        logits = model(feature_tensors={ITEM: inputs}, padding_mask=inputs != size)["logits"]
        values = logits[:, :size].double().numpy()
        values[[not len(row.history) for row in rows]] = 0.0
        return values

    return score


def _validate(model: Any, dataset: PreparedDataset, params: SasRecParams) -> float:
    """Mean ndcg@10 with one relevant item each (the first target) over the first validation rows."""
    rows = dataset.rows("valid")[: params.valid_rows]
    scores = _scorer(model, params.history, len(dataset.catalogue))(rows)
    found = top_items(scores, rows, 10, exclude_history=dataset.excludes_history).items
    hits = found == np.array([[row.targets[0]] for row in rows])
    return float((hits / np.log2(np.arange(2, 12))).sum(axis=1).mean())
