"""The transformer over item sequences that SASRec and BERT4Rec are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import cross_entropy

from recalign.api import Row
from recalign.errors import UserError
from recalign.recommenders.sequential_params import SequentialParams
from recalign.workspace import atomic


class SequentialModel(nn.Module):
    """A transformer over items; the next one is what comes after the last position (SASRec), or is hidden (BERT4Rec).

    SASRec's rows are padded at the right, so that no position sees padding; BERT4Rec's at the left, so that what comes
    next is always at the last position. Item I is the padding, item I + 1 hides another one.

    Args:
        items: I.
        params: sizes.
        masked_share: share of a sequence's items that BERT4Rec hides in training and guesses; None: SASRec, whose
            positions see earlier ones alone.
    """

    def __init__(self, items: int, params: SequentialParams, *, masked_share: float | None = None) -> None:
        super().__init__()
        if params.hidden % params.heads:
            raise UserError(
                f"heads = {params.heads} does not divide hidden = {params.hidden}.", "Choose -p heads so that it does."
            )
        self.items, self.params, self.masked_share = items, params, masked_share
        self.causal = masked_share is None
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
        """Return [B, L] item sequences of at most history + 1 items, padded to the longest."""
        block = np.full((len(sequences), max(1, *map(len, sequences))), self.items, dtype=np.int64)
        for place, items in enumerate(sequences):
            start = 0 if self.causal else block.shape[1] - len(items)
            block[place, start : start + len(items)] = items
        return torch.from_numpy(block).to(self.bias.device)

    def loss(self, sequences: Sequence[np.ndarray], generator: np.random.Generator) -> torch.Tensor:
        """Return the mean cross-entropy over all items: of every next item, or of the hidden ones."""
        block = self.padded(sequences)
        if self.masked_share is None:
            chosen = block[:, 1:] != self.items
            return cross_entropy(self(block[:, :-1], chosen), block[:, 1:][chosen])
        chosen = torch.from_numpy(
            hidden_positions((block != self.items).cpu().numpy(), self.masked_share, generator)
        ).to(block.device)
        return cross_entropy(self(block.masked_fill(chosen, self.items + 1), chosen), block[chosen])

    @torch.no_grad()
    def scores(self, rows: Sequence[Row]) -> np.ndarray:
        """Return the logits [B, I] of the next item, float64; SASRec gives 0 everywhere without a history."""
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

    def save(self, file: Path) -> None:
        """Write the weights as safetensors.

        Raises:
            UserError: the disk is full.
        """
        with atomic(file) as temporary:
            save_file({name: tensor.contiguous().cpu() for name, tensor in self.state_dict().items()}, temporary)

    def load(self, file: Path) -> SequentialModel:
        """Read weights that `save` wrote, and return the model on the device that computes.

        Raises:
            UserError: the file is missing or damaged, or of a model of another size.
        """
        try:
            self.load_state_dict(load_file(file))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise UserError(f"{file} holds no readable recommender: {error}.", "Train it again.") from None
        return self.to(device())


def hidden_positions(present: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    """Choose what BERT4Rec guesses: the last item of half of the sequences, a random share of the others' items.

    Args:
        present: [B, L] bool, where there is an item.
        share: of the items, 0 to 1; at least one of each sequence.
        generator: draws them.

    Returns:
        [B, L] bool.
    """
    draws = np.where(present, generator.random(present.shape), np.inf)
    some = (draws < share) | (draws == draws.min(axis=1, keepdims=True))
    last = np.arange(present.shape[1]) == present.shape[1] - 1
    return np.where(generator.random((len(present), 1)) < 0.5, last, some)


def device() -> str:
    """Return where recommenders are computed: a GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"
