"""ReRe: the worked example of docs/methods/rere.md, its gradient, and what it asks for."""

import math

import pytest
import torch

from recalign.api import UserError
from recalign.objectives.rere import Rere
from recalign.plugins.registry import create
from tests.objectives.test_grpo import batch_of

REWARDS = [-0.3904, -0.2463, 1.0, -0.1681]


def test_worked_example_of_the_docs(groups_of):
    advantages = Rere().credit(groups_of([REWARDS])).advantages
    mean = sum(REWARDS) / 4
    std = math.sqrt(sum((reward - mean) ** 2 for reward in REWARDS) / 3)
    expected = [(reward - mean) / (std + 1e-4) for reward in REWARDS]
    assert advantages[0].tolist() == pytest.approx(expected)
    assert advantages[0].tolist() == pytest.approx([-0.685, -0.460, 1.484, -0.338], abs=1e-3)


def test_a_group_whose_rewards_are_equal_teaches_nothing(groups_of):
    advantages = Rere().credit(groups_of([[0.0] * 4, [0.3] * 4])).advantages
    torch.testing.assert_close(advantages, torch.zeros(2, 4, dtype=torch.float64))


def test_gradient_is_that_of_advantage_times_log_probability_whatever_the_old_policy_was():
    batch = batch_of(
        [[-1.0, -2.0], [-0.5, 0.0]], [[-9.0, -9.0]] * 2, [[2.0] * 2, [-1.0] * 2], [[True, True], [True, False]]
    )
    loss, _ = Rere().loss(batch)
    loss.backward()
    assert loss.item() == pytest.approx(-(2.0 - 1.0) / 2)  # the ratio is 1 in value
    # -(1/G) A / T at every token: G = 2; T = 2 and 1
    torch.testing.assert_close(batch.logps.grad, torch.tensor([[-0.5, -0.5], [0.5, 0.0]], dtype=torch.float64))


def test_kl_is_added_with_its_weight():
    batch = batch_of([[-1.0]], [[-1.0]], [[0.0]], [[True]], reference=[[-1.0 + math.log(2)]])
    loss, metrics = create("objective", "rere", {"kl_beta": 0.5}).loss(batch)
    assert loss.item() == pytest.approx(0.5 * (2 - math.log(2) - 1))
    assert metrics["kl"] == pytest.approx(1 - math.log(2))


def test_it_asks_for_the_reference_policy_only_where_there_is_a_kl():
    assert Rere().needs.reference_logps is True
    assert create("objective", "rere", {"kl_beta": 0}).needs.reference_logps is False


def test_it_searches_and_takes_no_temperature():
    assert Rere().needs.rollouts == "beam" and Rere.tasks == {"next"}
    with pytest.raises(UserError, match="temperature"):
        create("objective", "rere", {"temperature": 0.5})
