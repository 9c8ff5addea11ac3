"""The judge's two losses, by hand and against each other."""

import math

import pytest
import torch

from recalign.api import AnswerBatch, ValidTokens
from recalign.objectives.judge import Judge, JudgeParams

YES, NO, END = 3, 5, 1
VALID = ValidTokens(torch.tensor([0, 2]), torch.tensor([0, 2, 4]), torch.tensor([YES, NO, YES, NO]))


def answers(logits):
    """Two answers, "yes" and "no", each of a word and the end token."""
    labels, rows = torch.tensor([YES, END, NO, END]), torch.tensor([0, 0, 1, 1])
    return AnswerBatch(logits=logits, labels=labels, rows=rows, valid_tokens=VALID)


def loss(over, logits):
    return Judge(JudgeParams(over=over)).loss(answers(logits))[0]


def test_over_words_is_logistic_regression_on_the_difference_of_two_logits():
    """-log sigmoid(z_right - z_wrong), mean over answers; the gradient on the difference is p - label."""
    logits = torch.zeros(4, 8)
    logits[0, YES], logits[0, NO], logits[2, YES], logits[2, NO] = 2.0, 0.5, 1.0, -1.0
    logits.requires_grad_()
    value = loss("words", logits)
    assert value.item() == pytest.approx((math.log1p(math.exp(-1.5)) + math.log1p(math.exp(2.0))) / 2)
    value.backward()
    p = [1 / (1 + math.exp(-1.5)), 1 / (1 + math.exp(-2.0))]
    assert logits.grad[0, YES].item() == pytest.approx((p[0] - 1) / 2)
    assert logits.grad[2, YES].item() == pytest.approx((p[1] - 0) / 2)
    assert logits.grad[0, NO].item() == pytest.approx(-(p[0] - 1) / 2)
    others = [column for column in range(8) if column not in (YES, NO)]
    assert logits.grad[:, others].abs().sum() == 0 and logits.grad[[1, 3]].abs().sum() == 0


def test_over_the_vocabulary_is_the_cross_entropy_of_an_answers_tokens():
    logits = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    by_hand = -logits.log_softmax(dim=1)[torch.arange(4), torch.tensor([YES, END, NO, END])].sum() / 2
    assert loss("vocabulary", logits).item() == pytest.approx(by_hand.item())


def test_both_agree_where_all_mass_lies_on_the_two_words():
    logits = torch.full((4, 8), -1e4)
    logits[0, YES], logits[0, NO], logits[2, YES], logits[2, NO] = 2.0, 0.5, 1.0, -1.0
    logits[[1, 3], END] = 0.0  # what follows the word is certain
    assert loss("vocabulary", logits).item() == pytest.approx(loss("words", logits).item(), abs=1e-6)


def test_a_constant_added_to_all_logits_changes_nothing():
    logits = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    for over in ("words", "vocabulary"):
        assert loss(over, logits + 7.0).item() == pytest.approx(loss(over, logits).item(), abs=1e-5)


def test_it_asks_in_its_own_words():
    needs = Judge(JudgeParams(positive="good", negative="bad", negatives=4)).needs
    assert needs.form.words == ("good", "bad") and not needs.form.rationale and needs.negatives == 4
    assert not needs.valid_tokens and Judge(JudgeParams(over="words")).needs.responses_only
