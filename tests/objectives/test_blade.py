"""BLADE: F over references and group, its floor, and its limits tau = 0 and M = 0."""

import math

import pytest
import torch

from recalign.api import UserError
from recalign.objectives.policy_gradient import proxy_reward
from recalign.plugins.registry import create


def test_proxy_reward_by_hand():
    rewards = torch.tensor([[0.0, 0.5, 2.0, 2.0]], dtype=torch.float64)
    reference = torch.tensor([[0.0, 0.2, 0.5, 1.0]], dtype=torch.float64)
    proxy = proxy_reward(rewards, reference, tau=0.5, best_of=2)
    # M + tau G = 4 + 0.5 * 4 = 6; n_ref = 0, 2, 4, 4; n_batch = 0, 1, 2, 2
    # F = 0 -> 0.25 / 6; (2 + 0.5) / 6; (4 + 1) / 6 twice
    expected = [[math.log(0.25 / 6), math.log(2.5 / 6), math.log(5 / 6), math.log(5 / 6)]]
    torch.testing.assert_close(proxy, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(("lists", "tau", "half"), [(5, 0.3, 0.15), (5, 2.0, 0.5), (5, 0.0, 0.5), (0, 0.3, 0.15)])
def test_a_count_of_0_is_half_the_smallest_positive_count(lists, tau, half):
    rewards = torch.zeros((1, 3), dtype=torch.float64)
    reference = torch.zeros((1, lists), dtype=torch.float64)
    total = lists + tau * 3
    wanted = torch.full((1, 3), math.log(half / total), dtype=torch.float64)
    torch.testing.assert_close(proxy_reward(rewards, reference, tau=tau, best_of=2), wanted)
    if not lists:
        torch.testing.assert_close(proxy_reward(rewards, None, tau=tau, best_of=2), wanted)


@pytest.mark.parametrize("tau", [1e-6, 0.03, 0.1, 0.3, 1.0, 7.0])
def test_without_references_tau_cancels_and_every_rank_has_its_own_advantage(groups_of, tau):
    groups = groups_of([[0.05 * place for place in range(16)]])
    advantages = create("objective", "blade", {"reference_lists": 0, "tau": tau}).credit(groups).advantages[0]
    assert (advantages.diff() > 0).all()
    logs = torch.log(torch.tensor([0.5, *range(1, 16)], dtype=torch.float64) / 16)
    torch.testing.assert_close(advantages, (logs - logs.mean()) / logs.std())


def test_ranks_below_every_reference_stay_apart(groups_of):
    groups = groups_of([[0.0, 0.1, 0.2, 0.3, *[0.4] * 12]], [[0.5] * 128])
    advantages = create("objective", "blade", {"tau": 0.1}).credit(groups).advantages[0]
    assert (advantages[:5].diff() > 0).all() and (advantages[4:] == advantages[4]).all()
    # n_ref = 0 and n_batch = 0 (floored at .05), .1, .2, .3 and .4 of 128 + 1.6
    logs = torch.log(torch.tensor([0.05, 0.1, 0.2, 0.3, *[0.4] * 12], dtype=torch.float64) / 129.6)
    torch.testing.assert_close(advantages, (logs - logs.mean()) / logs.std())


@pytest.mark.parametrize("tau", [1e-9, 5e-324])
def test_a_tau_too_small_for_floating_point_is_refused(tau):
    with pytest.raises(UserError, match="no longer tells"):
        create("objective", "blade", {"tau": tau})


def test_the_group_tells_apart_what_lies_above_every_reference(groups_of):
    groups = groups_of([[3.0, 5.0, 9.0, 0.5]], [[0.0, 1.0]])
    advantages = create("objective", "blade").credit(groups).advantages[0]
    assert advantages[2] > advantages[1] > advantages[0] > advantages[3]


def test_tau_zero_equals_static_best_of_n(groups_of):
    groups = groups_of([[0.0, 0.3, 2.0], [1.0, 0.1, 0.2]], [[0.0, 0.2, 0.5, 1.0], [0.1, 0.1, 0.1, 0.9]])
    blade = create("objective", "blade", {"tau": 0}).credit(groups)
    bon = create("objective", "bon").credit(groups)
    assert torch.equal(blade.advantages, bon.advantages)


def test_no_prior_ranks_within_the_group_alone(groups_of):
    credit = create("objective", "blade", {"reference_lists": 0, "tau": 1.0}).credit(groups_of([[0.1, 0.4, 0.2, 0.3]]))
    logs = torch.log(torch.tensor([[0.5, 3.0, 1.0, 2.0]], dtype=torch.float64) / 4)
    torch.testing.assert_close(credit.advantages, (logs - logs.mean()) / logs.std())


def test_nothing_to_compare_with_is_refused():
    with pytest.raises(UserError, match="nothing to compare"):
        create("objective", "blade", {"reference_lists": 0, "tau": 0})


def test_defaults_are_the_papers():
    objective = create("objective", "blade")
    assert (objective.needs.reference_lists, objective.params.tau, objective.params.group_size) == (128, 0.3, 16)


@pytest.mark.parametrize(("name", "value"), [("tau", -0.1), ("reference_lists", -1), ("best_of", 1), ("group_size", 1)])
def test_values_out_of_bounds_are_refused(name, value):
    with pytest.raises(UserError, match=name):
        create("objective", "blade", {name: value})


def test_a_misspelt_parameter_is_named():
    with pytest.raises(UserError, match="tua") as error:
        create("objective", "blade", {"tua": 0.3})
    assert "'tau'" in error.value.hint
