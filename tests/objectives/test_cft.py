"""CFT: hand-computed weights and value, gradients through both passes, the special cases that are SFT."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from recalign.api import AnswerBatch
from recalign.objectives.cft import Cft, CftParams, falling_weights
from recalign.objectives.sft import Sft


def batch(rows=(0, 0, 0, 1), vocabulary=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits, without = torch.randn(2, len(rows), vocabulary, generator=generator, dtype=torch.float64)
    labels = torch.randint(vocabulary, (len(rows),), generator=generator)
    return AnswerBatch(
        logits.requires_grad_(), labels, torch.tensor(rows), logits_without_history=without.requires_grad_()
    )


def test_weights_fall_linearly_within_each_answer_and_an_only_token_weighs_one():
    weights = falling_weights(torch.tensor([0, 0, 0, 1, 2, 2]), 0.25)
    assert weights.tolist() == [1.0, 0.625, 0.25, 1.0, 1.0, 0.25]


def test_a_batch_counts_for_the_sum_of_its_weights():
    assert float(Cft(CftParams(beta=0.25)).weight(batch(rows=(0, 0, 0, 1)))) == 1.0 + 0.625 + 0.25 + 1.0


def test_hand_computed_value():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    without = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    answers = AnswerBatch(logits, torch.tensor([0, 0]), torch.tensor([0, 0]), logits_without_history=without)
    value, figures = Cft(CftParams(alpha=0.5, beta=0.25)).loss(answers)
    plain = (math.log(1 + math.exp(-2)) + 0.25 * math.log(1 + math.exp(1))) / 1.25
    effect = (math.log(1 + math.exp(-1)) + 0.25 * math.log(1 + math.exp(1))) / 1.25
    assert float(value) == pytest.approx(plain + 0.5 * effect)
    assert figures == pytest.approx({"plain_loss": plain, "effect_loss": effect})


def test_alpha_zero_and_beta_one_is_sft_and_needs_no_second_pass():
    answers = batch()
    objective = Cft(CftParams(alpha=0.0, beta=1.0))
    assert objective.needs.without_history is False
    assert objective.loss(answers)[0].item() == pytest.approx(Sft().loss(answers)[0].item())


def test_gradients_flow_through_the_pass_without_history_with_opposite_sign():
    answers = batch()
    Cft(CftParams(alpha=1.0)).loss(answers)[0].backward()
    weights = falling_weights(answers.rows, 0.25)
    difference = (answers.logits - answers.logits_without_history).detach().requires_grad_()
    effect = (weights * cross_entropy(difference, answers.labels, reduction="none")).sum() / weights.sum()
    effect.backward()
    torch.testing.assert_close(answers.logits_without_history.grad, -difference.grad)


def test_an_answer_of_one_token_is_finite():
    answers = batch(rows=(0,))
    assert math.isfinite(Cft().loss(answers)[0].item())


def test_it_is_defined_on_responses_only():
    assert Cft().needs.responses_only and Cft(CftParams(alpha=0.0)).needs.responses_only
