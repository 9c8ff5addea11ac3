"""Cross-entropy of the answer tokens, against hand-computed values."""

import math

import pytest
import torch

from recalign.api import AnswerBatch
from recalign.objectives.sft import Sft
from recalign.plugins.registry import create


def answers(logits, labels):
    logits = torch.tensor(logits, requires_grad=True)
    return AnswerBatch(logits, torch.tensor(labels), torch.zeros(len(labels), dtype=torch.long))


def test_loss_is_the_mean_of_minus_log_probabilities():
    batch = answers([[0.0, 0.0], [math.log(3.0), 0.0]], [1, 0])
    loss, figures = Sft().loss(batch)
    assert loss.item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2, rel=1e-6)
    assert figures == {}


def test_gradient_is_probability_minus_label_over_the_number_of_tokens():
    batch = answers([[0.0, 0.0], [math.log(3.0), 0.0]], [1, 0])
    Sft().loss(batch)[0].backward()
    expected = torch.tensor([[0.5, -0.5], [0.75 - 1, 0.25]]) / 2
    assert torch.allclose(batch.logits.grad, expected, atol=1e-7)


def test_it_is_found_by_its_name():
    assert isinstance(create("objective", "sft"), Sft)
