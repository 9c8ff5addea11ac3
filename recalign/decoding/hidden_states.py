"""Hidden states of the language model: what a head reads that stands beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from recalign.decoding.shared_attention import own


def last_hidden_states(model: PreTrainedModel, sequences: Sequence[np.ndarray]) -> torch.Tensor:
    """Run a model without its head over sequences of token ids.

    Args:
        model: a causal language model, perhaps with an adapter, which lives inside its layers.
        sequences: N of one token or more each.

    Returns:
        [N, H] the last layer's state at each sequence's last token; gradients flow where they are enabled.
    """
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    longest = int(lengths.max())
    ids = torch.zeros(len(sequences), longest, dtype=torch.int64)
    for place, sequence in enumerate(sequences):
        ids[place, longest - len(sequence) :] = torch.from_numpy(np.asarray(sequence, dtype=np.int64))
    mask = torch.arange(longest) >= longest - lengths[:, None]  # padded on the left
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    device = model.device
    with own(model):
        output = model.get_decoder()(
            input_ids=ids.to(device),
            attention_mask=mask.long().to(device),
            position_ids=positions.to(device),
            use_cache=False,
        )
    return output.last_hidden_state[:, -1]
