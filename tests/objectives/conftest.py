"""Builders of the batches that objectives are handed."""

import pytest
import torch

from recalign.api import Groups


@pytest.fixture
def groups_of():
    """Wrap plain lists of rewards [P, G] and reference rewards [P, M] as Groups."""

    def build(rewards, reference=None):
        rewards = torch.tensor(rewards, dtype=torch.float64)
        return Groups(
            rewards=rewards,
            reference_rewards=None if reference is None else torch.tensor(reference, dtype=torch.float64),
            items=torch.zeros((*rewards.shape, 1), dtype=torch.int64),
            scores=torch.zeros_like(rewards),
        )

    return build
