"""Credit and loss on figures small enough to work out by hand."""

import pytest
import torch
from recalign_rloo import Rloo

from recalign.api import Groups, PolicyBatch


def test_baseline_is_the_mean_of_the_others():
    rewards = torch.tensor([[1.0, 0.0, 0.5], [0.2, 0.2, 0.2]], dtype=torch.float64)
    groups = Groups(rewards, None, torch.zeros(2, 3, 1, dtype=torch.int64), torch.zeros(2, 3))
    expected = [[1 - 0.25, 0 - 0.75, 0.5 - 0.5], [0.0, 0.0, 0.0]]
    assert Rloo().credit(groups).advantages.numpy() == pytest.approx(torch.tensor(expected).numpy(), abs=1e-12)


def test_gradient_is_the_advantage_of_each_counted_token():
    logps = torch.full((2, 2), -1.0, requires_grad=True)
    mask = torch.tensor([[True, True], [True, False]])
    loss, _ = Rloo().loss(PolicyBatch(logps, logps.detach(), None, torch.tensor([[1.0], [-2.0]]).expand(2, 2), mask))
    loss.backward()
    assert logps.grad.tolist() == [[-0.5, -0.5], [1.0, 0.0]]


def test_penalty_vanishes_at_the_reference():
    logps = torch.full((1, 2), -1.0, requires_grad=True)
    mask = torch.ones(1, 2, dtype=torch.bool)
    objective = Rloo(Rloo.Params(kl_beta=0.5))
    loss, metrics = objective.loss(PolicyBatch(logps, logps.detach(), logps.detach(), torch.zeros(1, 2), mask))
    assert metrics["kl"] == 0.0
    assert float(loss) == 0.0


def test_a_penalty_without_weight_is_measured_only():
    logps = torch.full((1, 2), -1.0, requires_grad=True)
    mask, reference = torch.tensor([[True, False]]), torch.tensor([[-torch.inf, torch.nan]])
    loss, metrics = Rloo().loss(PolicyBatch(logps, logps.detach(), reference, torch.ones(1, 2), mask))
    loss.backward()
    assert metrics["kl"] == torch.inf and float(loss) == 1.0
    assert logps.grad.tolist() == [[-1.0, 0.0]]
