"""The trial of backbones: vectors of a few made-up items, and their projection."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from recalign.api import Backbone
from recalign.plugins.check import examples


def problems(backbone: Backbone) -> Iterator[str]:
    """Compute the vectors and project them; yield one line per problem."""
    vectors = np.asarray(backbone.vectors(examples.catalogue()), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != examples.ITEMS:
        yield f"vectors returns shape {vectors.shape} for {examples.ITEMS} items; it must be [items, dimensions]"
        return
    if not np.isfinite(vectors).all():
        yield "vectors returns NaN or infinity"
        return
    projector = backbone.projector(vectors.shape[1], examples.HIDDEN)
    embeddings = projector(torch.from_numpy(vectors))
    if embeddings.shape != (examples.ITEMS, examples.HIDDEN):
        yield f"the projector returns shape {tuple(embeddings.shape)}, not {(examples.ITEMS, examples.HIDDEN)}"
    elif not embeddings.requires_grad:
        yield "the projector has nothing to train"
