"""IGD tuning: hand-computed value, forced tokens, the special case that is SFT."""

import math

import pytest
import torch

from recalign.api import AnswerBatch, ValidTokens
from recalign.objectives.igd import Igd, IgdParams
from recalign.objectives.sft import Sft


def batch(choices):
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]], requires_grad=True)
    allowed = ValidTokens(
        torch.tensor(choices, dtype=torch.int64),
        2 * torch.arange(len(choices) + 1),
        torch.tensor([0, 1] * len(choices)),
    )
    return AnswerBatch(logits, torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), allowed)


LOSSES = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(1)), math.log(1 + math.exp(-3))]


def test_forced_tokens_weigh_beta():
    value, figures = Igd(IgdParams(beta=0.1)).loss(batch([1]))
    expected = (0.1 * LOSSES[0] + LOSSES[1] + 0.1 * LOSSES[2]) / 1.2
    assert value.item() == pytest.approx(expected)
    assert figures["choice_share"] == pytest.approx(1 / 3)


def test_beta_one_is_sft():
    answers = batch([0, 2])
    assert Igd(IgdParams(beta=1.0)).loss(answers)[0].item() == pytest.approx(Sft().loss(answers)[0].item())


def test_beta_zero_leaves_forced_tokens_without_gradient():
    answers = batch([1])
    Igd(IgdParams(beta=0.0)).loss(answers)[0].backward()
    assert answers.logits.grad[[0, 2]].abs().sum() == 0
    assert answers.logits.grad[1].abs().sum() > 0


def test_all_forced_is_sft_and_with_beta_zero_a_loss_of_zero():
    assert Igd(IgdParams(beta=0.1)).loss(batch([]))[0].item() == pytest.approx(sum(LOSSES) / 3)
    value = Igd(IgdParams(beta=0.0)).loss(batch([]))[0]
    assert value.item() == 0.0
    value.backward()
