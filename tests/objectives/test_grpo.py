"""GRPO's credit and loss against numbers worked by hand, and against TRL's formula on the same log-probabilities."""

import math

import pytest
import torch

from recalign.api import PolicyBatch, UserError
from recalign.objectives.grpo import Grpo
from recalign.plugins.registry import create


def batch_of(logps, old, advantages, mask, reference=None):
    """Wrap plain lists as a PolicyBatch whose logps carry gradients."""
    return PolicyBatch(
        logps=torch.tensor(logps, dtype=torch.float64, requires_grad=True),
        old_logps=torch.tensor(old, dtype=torch.float64),
        reference_logps=None if reference is None else torch.tensor(reference, dtype=torch.float64),
        advantages=torch.tensor(advantages, dtype=torch.float64),
        mask=torch.tensor(mask, dtype=torch.bool),
    )


def test_advantages_are_standardised_within_each_group(groups_of):
    credit = create("objective", "grpo").credit(groups_of([[1.0, 2.0, 3.0], [0.0, 0.0, 3.0]]))
    third = 1 / math.sqrt(3)  # mean 1, sample std sqrt(3): (-1, -1, 2) / sqrt(3)
    expected = torch.tensor([[-1.0, 0.0, 1.0], [-third, -third, 2 * third]], dtype=torch.float64)
    torch.testing.assert_close(credit.advantages, expected)


def test_a_group_without_variance_has_advantage_zero_even_where_floats_differ_in_the_last_bit(groups_of):
    credit = create("objective", "grpo").credit(groups_of([[0.5, 0.5, 0.5], [0.1 + 0.2, 0.3, 0.3]]))
    assert torch.equal(credit.advantages, torch.zeros(2, 3, dtype=torch.float64))


def test_scale_none_only_subtracts_the_mean(groups_of):
    credit = create("objective", "grpo", {"scale": "none"}).credit(groups_of([[1.0, 2.0, 6.0]]))
    assert credit.advantages.tolist() == [[-2.0, -1.0, 3.0]]


def test_loss_by_hand_with_a_clipped_ratio_and_padding():
    batch = batch_of(
        logps=[[math.log(1.5), 0.0], [math.log(0.5), 7.0]],
        old=[[0.0, 0.0], [0.0, 0.0]],
        advantages=[[1.0, 1.0], [-1.0, -1.0]],
        mask=[[True, True], [True, False]],
    )
    loss, metrics = Grpo().loss(batch)
    # first: (min(1.5, 1.2) + 1) / 2 = 1.1; second: min(-0.5, -0.8) = -0.8; loss = -(1.1 - 0.8) / 2
    assert loss.item() == pytest.approx(-0.15)
    assert metrics["clipped"] == pytest.approx(2 / 3)
    loss.backward()
    assert batch.logps.grad[0, 0] == 0  # clipped: no gradient
    assert batch.logps.grad[0, 1] == pytest.approx(-1 / 4)  # d/dlogp of -(1/2)(1/2) exp(logp) at 0
    assert batch.logps.grad[1, 0] == 0  # below 1 - eps with a negative advantage: clipped
    assert batch.logps.grad[1, 1] == 0  # padding


def test_gradient_raises_good_completions_and_lowers_bad_ones():
    batch = batch_of([[-1.0], [-1.0]], [[-1.0], [-1.0]], [[2.0], [-2.0]], [[True], [True]])
    Grpo().loss(batch)[0].backward()
    assert batch.logps.grad[0, 0] < 0 < batch.logps.grad[1, 0]


def test_zero_advantage_without_kl_has_no_gradient():
    batch = batch_of([[-1.0, -2.0]], [[-1.1, -2.0]], [[0.0, 0.0]], [[True, True]])
    Grpo().loss(batch)[0].backward()
    assert torch.equal(batch.logps.grad, torch.zeros(1, 2, dtype=torch.float64))


def test_kl_is_the_k3_estimator():
    batch = batch_of([[-1.0]], [[-1.0]], [[0.0]], [[True]], reference=[[-1.0 + math.log(2)]])
    loss, metrics = create("objective", "grpo", {"kl_beta": 0.5}).loss(batch)
    assert metrics["kl"] == pytest.approx(2 - math.log(2) - 1)
    assert loss.item() == pytest.approx(0.5 * (1 - math.log(2)))


def test_without_length_normalisation_long_completions_weigh_more():
    batch = batch_of([[0.0, 0.0], [0.0, 0.0]], [[0.0] * 2] * 2, [[1.0, 1.0], [3.0, 0.0]], [[True, True], [True, False]])
    assert Grpo().loss(batch)[0].item() == pytest.approx(-(1 + 3) / 2)
    loss = create("objective", "grpo", {"length_normalise": "false"}).loss(batch)[0]
    assert loss.item() == pytest.approx(-(2 + 3) / 2)


def test_equals_trls_formula_on_random_log_probabilities():
    generator = torch.Generator().manual_seed(0)
    logps, old, reference = (-torch.rand(6, 5, generator=generator, dtype=torch.float64) for _ in range(3))
    advantages = torch.randn(6, 1, generator=generator, dtype=torch.float64)
    mask = torch.arange(5) < torch.tensor([[5], [3], [1], [4], [5], [2]])
    batch = PolicyBatch(logps, old, reference, advantages.expand(6, 5), mask)
    loss, _ = create("objective", "grpo", {"kl_beta": 0.04}).loss(batch)

    # trl.GRPOTrainer._compute_loss, loss_type="grpo", importance_sampling_level="token", epsilon_low = epsilon_high
    per_token_kl = torch.exp(reference - logps) - (reference - logps) - 1
    coef_1 = torch.exp(logps - old)
    coef_2 = torch.clamp(coef_1, 1 - 0.2, 1 + 0.2)
    per_token_loss = -torch.min(coef_1 * advantages, coef_2 * advantages) + 0.04 * per_token_kl
    expected = ((per_token_loss * mask).sum(-1) / mask.sum(-1).clamp(min=1.0)).mean()
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize(
    ("name", "value"), [("group_size", 1), ("temperature", 0), ("clip_epsilon", 1), ("scale", "x")]
)
def test_values_out_of_bounds_are_refused(name, value):
    with pytest.raises(UserError, match=name):
        create("objective", "grpo", {name: value})
