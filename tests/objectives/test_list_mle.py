"""ListMLE: the value at equal scores, the top-1 form, the gradient by hand, padding."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from recalign.api import RankBatch
from recalign.plugins.registry import create


def batch_of(objective, scores, gains, present=None, seed=0):
    scores, gains = torch.as_tensor(scores), torch.as_tensor(gains, dtype=torch.float64)
    present = torch.ones(gains.shape, dtype=torch.bool) if present is None else torch.as_tensor(present)
    noise = torch.rand(len(gains), 1, gains.shape[1], generator=torch.Generator().manual_seed(seed))
    orders = objective.orders(scores.detach().double(), gains, noise, present)
    nothing = torch.zeros(len(gains), 1)
    return RankBatch(scores, orders, scores.detach(), nothing, gains, present)


@pytest.mark.parametrize(("top", "expected"), [(None, math.lgamma(21)), (1, math.log(20)), (2, math.log(20 * 19))])
def test_at_equal_scores_the_loss_counts_the_orders(top, expected):
    objective = create("objective", "list-mle", {"top": top} if top else {})
    gains = torch.zeros(3, 20)
    gains[torch.arange(3), torch.tensor([0, 7, 19])] = 1.0
    loss, _ = objective.loss(batch_of(objective, torch.zeros(3, 20), gains))
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_the_top_1_form_is_softmax_cross_entropy_and_so_is_its_gradient():
    objective = create("objective", "list-mle", {"top": 1})
    scores = torch.randn(5, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = torch.tensor([0, 2, 5, 1, 1])
    gains = torch.nn.functional.one_hot(targets, 6)
    loss, figures = objective.loss(batch_of(objective, scores, gains))
    expected = cross_entropy(scores, targets)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(each, scores)[0] for each in (loss, expected)))
    assert figures["leads"] == pytest.approx(float((scores.argmax(dim=1) == targets).double().mean()))


def test_graded_candidates_by_hand():
    objective = create("objective", "list-mle")
    loss, _ = objective.loss(batch_of(objective, [[1.0, 0.0, 2.0]], [[2.0, 0.0, 1.0]]))
    left = math.exp(1) + math.exp(0) + math.exp(2)
    expected = -math.log(math.exp(1) / left) - math.log(math.exp(2) / (math.exp(2) + 1))
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_padding_counts_for_nothing():
    objective = create("objective", "list-mle")
    padded = batch_of(objective, [[0.5, 1.0, 9.0]], [[1.0, 0.0, 0.0]], [[True, True, False]])
    bare = batch_of(objective, [[0.5, 1.0]], [[1.0, 0.0]])
    torch.testing.assert_close(objective.loss(padded)[0], objective.loss(bare)[0])


def test_the_model_learns_through_the_scores_unless_the_head_alone_does():
    assert create("objective", "list-mle").needs.scores_train_model
    needs = create("objective", "list-mle", {"head_only": True}).needs
    assert not needs.scores_train_model and not needs.trains_model and not needs.responses
