"""Ties, floors and epsilons keep the order of rewards, whatever their scale; infinite ratios stay where they belong."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from recalign.api import Groups
from recalign.objectives.policy_gradient import TIE, penalised_loss, proxy_reward, settle_ties, zero_variance
from recalign.plugins.registry import create
from tests.objectives.test_grpo import batch_of

SCALES = [1e-300, 1e-12, 1e-3, 1.0, 1e6, 1e300]
few = settings(max_examples=25)
NUMBERS = some.lists(some.integers(-8, 8), min_size=2, max_size=16)


def tensor(values):
    """One prompt's rewards."""
    return torch.tensor([values], dtype=torch.float64)


def advantages(name, rewards, reference=None, **params):
    """What an objective gives one prompt's rewards."""
    rewards = tensor(rewards)
    groups = Groups(
        rewards,
        None if reference is None else tensor(reference),
        torch.zeros(*rewards.shape, 1, dtype=torch.int64),
        torch.zeros_like(rewards),
    )
    return create("objective", name, params).credit(groups).advantages[0].tolist()


def same_order(one, two):
    """Whether two lists of numbers rise, fall and stay together."""
    return all(
        (a < b, a == b) == (c < d, c == d) for a, c in zip(one, two, strict=True) for b, d in zip(one, two, strict=True)
    )


def test_settling_by_hand():
    rewards = tensor([0.1 + 0.2, 0.3, 1.0, 1.0 - 4e-13, 1.0 - 8e-13, 1.0 - 12e-13])
    # The largest is 1: a tie is 1e-12 wide, and begins at the smallest of it. The last one is too far from 1.0.
    assert settle_ties(rewards).tolist() == [[0.3, 0.3, 1.0, 1.0 - 12e-13, 1.0 - 12e-13, 1.0 - 12e-13]]


@given(some.lists(some.floats(-1e6, 1e6), min_size=1, max_size=12), some.sampled_from(SCALES))
def test_settled_rewards_keep_their_order_and_what_is_apart_stays_apart(values, scale):
    before = tensor(values) * scale
    after = settle_ties(before)
    width = float(before.abs().max()) * TIE
    apart = before[0][:, None] - before[0][None, :]
    moved = after[0][:, None] - after[0][None, :]
    assert (moved[apart > width] > 0).all()
    assert (moved[apart >= 0] >= 0).all()
    assert (after <= before).all() and (before - after <= width).all()
    assert torch.equal(settle_ties(after), after)


@given(some.lists(some.integers(0, 3), min_size=2, max_size=16), some.integers(0, 2**16))
def test_chains_of_near_ties_do_not_grow_together(steps, seed):
    """Values half a tie apart, in any order: none moves further than a tie, so the ends of a chain differ."""
    values = 1 - torch.tensor(steps, dtype=torch.float64).cumsum(0) * TIE / 2
    shuffled = values[torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))][None]
    settled = settle_ties(torch.cat([shuffled, torch.ones(1, 1, dtype=torch.float64)], dim=1))[:, :-1]
    assert (shuffled - settled <= TIE).all()
    assert (settled.amax() > settled.amin()) or float(shuffled.amax() - shuffled.amin()) <= TIE


@pytest.mark.parametrize("scale", SCALES)
@few
@given(NUMBERS)
def test_advantages_keep_the_order_of_rewards_of_any_scale(scale, values):
    rewards = [value * scale for value in values]
    for name, params in [("grpo", {}), ("grpo", {"scale": "none"}), ("rere", {"std_offset": 0}), ("rere", {})]:
        found = advantages(name, rewards, **params)
        assert all(math.isfinite(value) for value in found)
        assert same_order(values, found), (name, params)


@pytest.mark.parametrize("scale", SCALES)
def test_standardised_advantages_do_not_depend_on_the_scale(scale):
    wanted = [(value - 3) / math.sqrt(7) for value in (1, 2, 6)]
    for name, params in [("grpo", {}), ("rere", {"std_offset": 0})]:
        assert advantages(name, [scale, 2 * scale, 6 * scale], **params) == pytest.approx(wanted)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("tau", [1e-6, 0.03, 0.1, 0.3, 0.5, 1.0, 20.0, 1e9])
@few
@given(NUMBERS, some.lists(some.integers(-8, 8), max_size=16))
def test_blade_keeps_the_order_of_the_groups_rewards(scale, tau, values, references):
    rewards, reference = [value * scale for value in values], [value * scale for value in references]
    proxy = proxy_reward(tensor(rewards), tensor(reference), tau=tau, best_of=16)
    assert same_order(values, proxy[0].tolist())
    found = advantages("blade", rewards, reference, tau=tau, reference_lists=1)
    assert same_order(values, found)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("ties", [False, True])
@few
@given(NUMBERS, some.lists(some.integers(-8, 8), min_size=1, max_size=16))
def test_static_best_of_n_orders_by_the_number_of_references_below(scale, ties, values, references):
    beaten = [sum(other < value or (ties and other == value) for other in references) for value in values]
    rewards, reference = [value * scale for value in values], [value * scale for value in references]
    assert same_order(beaten, advantages("bon", rewards, reference, count_ties=ties))


@pytest.mark.parametrize("scale", SCALES)
def test_list_dpo_finds_the_best_and_the_first_of_those_that_differ_by_rounding(scale):
    assert advantages("list-dpo", [0.3 * scale, (0.1 + 0.2) * scale, 0.0, 0.0]) == [1.0, 0.0, -1.0, 0.0]


@pytest.mark.parametrize("scale", SCALES)
def test_rounding_is_no_variance_and_a_difference_is(scale):
    assert zero_variance(settle_ties(tensor([(0.1 + 0.2) * scale, 0.3 * scale]))).item()
    assert not zero_variance(settle_ties(tensor([0.0, 1e-9 * scale, scale]))).item()
    assert not zero_variance(settle_ties(tensor([0.0, 1e-9 * scale]))).item()


def infinite_batch():
    """The reference gives the first completion's token no probability worth the name, and the padding is no number."""
    batch = batch_of([[0.0, 0.0], [0.0, 0.0]], [[0.0] * 2] * 2, [[1.0] * 2, [-1.0] * 2], [[True, False], [True, True]])
    reference = torch.tensor([[-math.inf, math.nan], [0.0, 0.0]], dtype=torch.float64)
    return replace(batch, reference_logps=reference)


@pytest.mark.parametrize("name", ["grpo", "blade", "bon", "rere"])
def test_a_kl_that_is_only_measured_is_no_part_of_the_loss(name):
    plain = replace(infinite_batch(), reference_logps=None)
    measured = infinite_batch()
    objective = create("objective", name, {"kl_beta": 0})
    wanted, _ = objective.loss(plain)
    loss, metrics = objective.loss(measured)
    assert metrics["kl"] == math.inf
    assert loss.item() == wanted.item()
    wanted.backward()
    loss.backward()
    assert torch.equal(measured.logps.grad, plain.logps.grad)


def test_what_stands_in_the_padding_counts_nowhere():
    batch = batch_of([[0.0, math.inf]], [[0.0, -math.inf]], [[1.0, 1.0]], [[True, False]], [[0.0, math.nan]])
    loss, metrics = create("objective", "grpo", {"kl_beta": 0.5}).loss(batch)
    assert loss.item() == -1.0 and metrics == {"clipped": 0.0, "kl": 0.0}
    loss.backward()
    assert batch.logps.grad.tolist() == [[-1.0, 0.0]]
    gain = torch.tensor([[2.0, math.nan]], dtype=torch.float64, requires_grad=True)
    assert penalised_loss(gain, batch, 0.0)[0].item() == -2.0
