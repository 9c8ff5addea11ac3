"""Computed input embeddings of added item tokens: a backbone's vectors, projected by a module that is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from recalign.api import Backbone, Catalogue
from recalign.errors import UserError
from recalign.models.modules import Model, attach, attached, stored
from recalign.plugins.registry import blamed, create, plugin_error

NAME = "item_embeddings"
"""Name of the module among those beside the model."""


class ItemEmbeddings(nn.Module):
    """Embeddings of items, projected from their vectors.

    Args:
        vectors: [I, D] float32.
        tokens: [I] int64, the added token of each item.
        projector: maps [..., D] to [..., H].
    """

    vectors: torch.Tensor
    tokens: torch.Tensor
    item_of: torch.Tensor

    def __init__(self, vectors: torch.Tensor, tokens: torch.Tensor, projector: nn.Module) -> None:
        super().__init__()
        self.projector = projector
        self.register_buffer("vectors", vectors)
        self.register_buffer("tokens", tokens)
        item_of = torch.full((int(tokens.max()) + 2,), -1)  # the last place stands for all later tokens
        item_of[tokens] = torch.arange(len(tokens))
        self.register_buffer("item_of", item_of, persistent=False)

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        """Return the embeddings [..., H] of items."""
        return self.projector(self.vectors[items])

    def replace(self, embedding: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """Put the computed embeddings in the places of item tokens; the signature is that of a forward hook.

        Args:
            embedding: the model's input embeddings.
            inputs: token ids, any shape.
            output: their embeddings [..., H].
        """
        items = self.item_of[inputs[0].clamp_max(len(self.item_of) - 1)]
        places = torch.nonzero(items >= 0, as_tuple=True)  # without any, the projector still is part of the graph
        return output.index_put(places, self(items[places]).to(output.dtype))


def backbone_settings(backbone: Backbone) -> dict[str, Any]:
    """Return what `recalign.json` records of a backbone."""
    return {"name": backbone.name, "params": backbone.params.model_dump(mode="json")}


def attach_backbone(
    model: Model,
    recorded: dict[str, Any],
    catalogue: Catalogue | None,
    paths: Sequence[np.ndarray],
    *,
    seed: int,
    folder: Path | None,
) -> ItemEmbeddings:
    """Let a model compute the input embeddings of item tokens.

    Args:
        model: the language model.
        recorded: name and parameters of the backbone, see `backbone_settings`.
        catalogue: the items; None where the folder has their vectors.
        paths: [I] the one token of each item.
        seed: of the projector's new weights.
        folder: a model's with a trained projector, whose vectors are used again; or None.

    Raises:
        UserError: the backbone's files are missing or damaged, its vectors have another shape or are not finite, or the
            folder's weights belong to another projector.
    """
    backbone = create("backbone", recorded["name"], recorded["params"])
    known = {} if folder is None else stored(folder, NAME)
    if known:
        vectors, tokens = known["vectors"], known["tokens"]
    else:
        assert catalogue is not None
        vectors = _vectors(backbone, catalogue)
        tokens = torch.tensor([int(path[0]) for path in paths])

    def make(hidden_size: int) -> nn.Module:
        with blamed("backbone", backbone, "projector"):
            return ItemEmbeddings(vectors, tokens, backbone.projector(vectors.shape[1], hidden_size))

    module = attach(model, NAME, make, seed=seed, folder=folder)
    assert isinstance(module, ItemEmbeddings)
    model.get_input_embeddings().register_forward_hook(module.replace)
    return module


def write_into_weights(model: PreTrainedModel) -> None:
    """Write computed embeddings into the embedding matrix, for whoever loads the model without recalign.

    The head keeps its rows: where it was one matrix with the input embeddings, it gets a copy of its own.
    """
    module = attached(model)[NAME]
    assert isinstance(module, ItemEmbeddings)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head.weight is embedding.weight:
        head.weight = nn.Parameter(head.weight.detach().clone())
        model.config.get_text_config().tie_word_embeddings = False
        model.config.tie_word_embeddings = False
    with torch.no_grad():
        rows = module(torch.arange(len(module.tokens), device=module.tokens.device))
        embedding.weight[module.tokens] = rows.to(embedding.weight.dtype)


def _vectors(backbone: Backbone, catalogue: Catalogue) -> torch.Tensor:
    with blamed("backbone", backbone, "vectors"):
        vectors = np.asarray(backbone.vectors(catalogue), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(catalogue) or not np.isfinite(vectors).all():
        raise plugin_error(
            "backbone",
            backbone,
            f"returned vectors of shape {list(vectors.shape)} for {len(catalogue)} items, or some that are not finite",
        )
    return torch.from_numpy(vectors)


def check_identifier(backbone: str, identifier: str) -> None:
    """Refuse a backbone where items are not written as one added token each.

    Raises:
        UserError: they are not.
    """
    if identifier != "atomic":
        raise UserError(
            f"The backbone '{backbone}' computes the embedding of one added token per item; this dataset writes items "
            f"as '{identifier}'.",
            "Prepare the dataset with --identifier atomic.",
        )
