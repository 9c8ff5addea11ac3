"""SASRec and BERT4Rec: self-attentive recommenders over item sequences, trained on a dataset's interactions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import cross_entropy

from recalign import console
from recalign.data.dataset import Row
from recalign.errors import UserError
from recalign.params import Params, build_params
from recalign.recommenders.simple import Scorer, Training, top_items
from recalign.workspace import atomic, read_json, write_json

if TYPE_CHECKING:
    from recalign.data.dataset import PreparedDataset

CONFIG, WEIGHTS = "config.json", "model.safetensors"


class SequentialParams(Params):
    """Parameters of both models and of their training."""

    hidden: int = Field(64, ge=8, description="width of the embeddings")
    layers: int = Field(2, ge=1, description="transformer layers")
    heads: int = Field(2, ge=1, description="attention heads; they share the width")
    dropout: float = Field(0.2, ge=0, lt=1, description="dropout")
    history: int = Field(50, ge=1, description="most items of a history that the model reads, the last ones")
    epochs: int = Field(200, ge=1, description="passes over the users, at most")
    patience: int = Field(20, ge=1, description="epochs without a better validation ndcg@10 before it stops")
    batch_size: int = Field(128, ge=1, description="sequences an update")
    learning_rate: float = Field(1e-3, gt=0, description="of Adam")
    valid_rows: int = Field(1000, ge=1, description="validation rows, the first ones")


class SasRecParams(SequentialParams):
    """Parameters of SASRec."""


class Bert4RecParams(SequentialParams):
    """Parameters of BERT4Rec, which learns from fewer positions an epoch and takes more of them."""

    epochs: int = Field(400, ge=1, description="passes over the users, at most")
    mask: float = Field(0.2, gt=0, lt=1, description="share of a sequence's items that are hidden and guessed")


KINDS: dict[str, type[SequentialParams]] = {"sasrec": SasRecParams, "bert4rec": Bert4RecParams}


class SequentialModel(nn.Module):
    """A transformer over items; the next one is what comes after the last position (SASRec), or is hidden (BERT4Rec).

    SASRec's rows are padded at the right, so that no position sees padding; BERT4Rec's at the left, so that what comes
    next is always at the last position. Item I is the padding, item I + 1 hides another one.

    Args:
        items: I.
        params: SasRecParams or Bert4RecParams, which decide which model it is.

    Attributes:
        fit: how training went: the kept `epoch` (from 1), `epochs` done, validation `ndcg@10` of the kept one.
    """

    def __init__(self, items: int, params: SequentialParams) -> None:
        super().__init__()
        if params.hidden % params.heads:
            raise UserError(
                f"heads = {params.heads} does not divide hidden = {params.hidden}.", "Choose -p heads so that it does."
            )
        self.items, self.params, self.causal = items, params, isinstance(params, SasRecParams)
        width = params.hidden
        layer = nn.TransformerEncoderLayer(
            width,
            params.heads,
            width if self.causal else 4 * width,
            params.dropout,
            "relu" if self.causal else "gelu",
            batch_first=True,
            norm_first=True,
        )
        self.embedding = nn.Embedding(items + 2, width)
        self.position = nn.Embedding(params.history + 1, width)
        self.dropout = nn.Dropout(params.dropout)
        self.encoder = nn.TransformerEncoder(layer, params.layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.bias = nn.Parameter(torch.zeros(items))
        self.fit: dict[str, float] = {}
        for table in (self.embedding, self.position):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, tokens: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Return the logits [N, I] at the N chosen positions (bool [B, L]) of item sequences [B, L]."""
        length = tokens.shape[1]
        places = self.position.weight[:length] if self.causal else self.position.weight[-length:]
        states = self.dropout(self.embedding(tokens) + places)
        later = nn.Transformer.generate_square_subsequent_mask(length, device=tokens.device) if self.causal else None
        padding = None if self.causal else tokens == self.items
        states = self.encoder(states, mask=later, src_key_padding_mask=padding, is_causal=self.causal)
        return states[chosen] @ self.embedding.weight[: self.items].T + self.bias

    def padded(self, sequences: Sequence[np.ndarray]) -> torch.Tensor:
        """[B, L] item sequences of at most history + 1 items, padded to the longest."""
        block = np.full((len(sequences), max(1, *map(len, sequences))), self.items, dtype=np.int64)
        for place, items in enumerate(sequences):
            start = 0 if self.causal else block.shape[1] - len(items)
            block[place, start : start + len(items)] = items
        return torch.from_numpy(block).to(self.bias.device)

    def loss(self, sequences: Sequence[np.ndarray], generator: np.random.Generator) -> torch.Tensor:
        """Mean cross-entropy over all items: of every next item, or of the hidden ones."""
        block = self.padded(sequences)
        if self.causal:
            chosen = block[:, 1:] != self.items
            return cross_entropy(self(block[:, :-1], chosen), block[:, 1:][chosen])
        chosen = torch.from_numpy(self._hidden((block != self.items).cpu().numpy(), generator)).to(block.device)
        return cross_entropy(self(block.masked_fill(chosen, self.items + 1), chosen), block[chosen])

    def _hidden(self, present: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """[B, L] bool: the last item of half of the sequences, a random share of the others', at least one each."""
        draws = np.where(present, generator.random(present.shape), np.inf)
        some = (draws < self.params.mask) | (draws == draws.min(axis=1, keepdims=True))
        last = np.arange(present.shape[1]) == present.shape[1] - 1
        return np.where(generator.random((len(present), 1)) < 0.5, last, some)

    @torch.no_grad()
    def scores(self, rows: Sequence[Row]) -> np.ndarray:
        """Logits [B, I] of the item that comes next, float64; SASRec gives 0 everywhere without a history."""
        self.eval()
        histories = [row.history[-self.params.history :] for row in rows]
        if self.causal:
            ends = np.array([max(len(items), 1) - 1 for items in histories])
        else:
            histories = [np.append(items, self.items + 1) for items in histories]
            ends = np.full(len(rows), max(map(len, histories)) - 1)
        block = self.padded(histories)
        chosen = torch.from_numpy(np.arange(block.shape[1]) == ends[:, None]).to(block.device)
        values = self(block, chosen).double().cpu().numpy()
        if self.causal:
            values[[not len(items) for items in histories]] = 0.0
        return values

    def save(self, folder: Path, kind: str) -> None:
        """Write `config.json` and `model.safetensors`.

        Raises:
            UserError: the disk is full.
        """
        write_json(folder / CONFIG, {"kind": kind, "items": self.items, "params": self.params.model_dump()})
        with atomic(folder / WEIGHTS) as temporary:
            save_file({name: tensor.contiguous().cpu() for name, tensor in self.state_dict().items()}, temporary)

    @classmethod
    def load(cls, folder: Path) -> SequentialModel:
        """Read what `save` wrote.

        Raises:
            UserError: files are missing, damaged, or of another version.
        """
        config = read_json(folder / CONFIG)
        try:
            model = cls(config["items"], build_params(KINDS[config["kind"]], config["params"], config["kind"]))
            model.load_state_dict(load_file(folder / WEIGHTS))
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            raise UserError(f"{folder} holds no readable recommender: {error}.", "Train it again.") from None
        return model.to(_device())


def train_sequential(kind: str, dataset: PreparedDataset, params: SequentialParams, seed: int) -> SequentialModel:
    """Train on users' sequences of training interactions; the epoch that is best on validation rows is kept.

    SASRec: cross-entropy over all items at every position instead of the paper's one sampled negative, as later work.

    Args:
        kind: for the progress bar; `params` decide.
        dataset: its training interactions, and validation rows for early stopping.
        params: size and training.
        seed: of weights, dropout, hidden items and the order of sequences.

    Source: Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018; Sun et al., "BERT4Rec", CIKM 2019.
    """
    sequences = _sequences(Training.of(dataset, seed), params.history)
    if not sequences:
        raise UserError(f"No user of {dataset.path} has two training interactions: nothing follows anything.")
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        model = SequentialModel(len(dataset.catalogue), params).to(_device())
        _fit(model, kind, sequences, np.random.default_rng(seed), lambda: _validate(model.scores, dataset, params))
    return model


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _sequences(training: Training, history: int) -> list[np.ndarray]:
    """Users' sequences cut from behind into pieces of `history` items and one more, which is the next one's first."""
    bounds = np.flatnonzero(np.diff(training.users, prepend=-1, append=-1))
    pieces = []
    for start, end in zip(bounds, bounds[1:], strict=False):
        for stop in range(end, start + 1, -history):
            pieces.append(training.items[max(start, stop - history - 1) : stop])
    return [piece for piece in pieces if len(piece) > 1]


def _batches(sequences: Sequence[np.ndarray], size: int, generator: np.random.Generator) -> Iterator[list[np.ndarray]]:
    """Batches of sequences of like length, in random order."""
    order = generator.permutation(len(sequences))
    order = order[np.argsort([len(sequences[i]) for i in order], kind="stable")]
    for start in generator.permutation(np.arange(0, len(order), size)):
        yield [sequences[i] for i in order[start : start + size]]


def _fit(
    model: SequentialModel,
    kind: str,
    sequences: Sequence[np.ndarray],
    generator: np.random.Generator,
    validate: Callable[[], float],
) -> None:
    """Train in place with early stopping."""
    params = model.params
    optimiser = torch.optim.Adam(model.parameters(), lr=params.learning_rate)
    best, best_weights, waited = -1.0, copy.deepcopy(model.state_dict()), 0
    with console.progress(kind, params.epochs) as advance:
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
            model.fit = {"epoch": epoch - waited, "epochs": epoch, "ndcg@10": best}
            if waited >= params.patience:
                break
    model.load_state_dict(best_weights)


def _validate(scorer: Scorer, dataset: PreparedDataset, params: SequentialParams) -> float:
    """Mean ndcg@10 with one relevant item each (the first target) over the first validation rows."""
    rows = dataset.rows("valid")[: params.valid_rows]
    found = top_items(scorer(rows), rows, 10, exclude_history=dataset.excludes_history()).items
    hits = found == np.array([[row.targets[0]] for row in rows])
    return float((hits / np.log2(np.arange(2, 12))).sum(axis=1).mean())
