"""Static best-of-N: the proxy reward against numbers worked by hand."""

import math

import pytest
import torch

from recalign.api import UserError
from recalign.objectives.policy_gradient import (
    count_below,
    group_advantages,
    proxy_reward,
    settle_with_references,
)
from recalign.plugins.registry import create


def test_counts_are_strict_unless_ties_are_asked_for():
    values = torch.tensor([[0.0, 0.5, 0.6, 2.0], [1.0, 1.0, 1.0, 0.0]], dtype=torch.float64)
    sample = torch.tensor([[0.5, 0.0, 1.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    assert count_below(values, sample).tolist() == [[0, 1, 2, 3], [0, 0, 0, 0]]
    assert count_below(values, sample, ties=True).tolist() == [[1, 2, 2, 3], [3, 3, 3, 0]]


def test_the_last_bit_is_a_tie_on_either_side():
    more, less = torch.tensor([[0.1 + 0.2]], dtype=torch.float64), torch.tensor([[0.3]], dtype=torch.float64)
    assert more.item() > less.item()
    for rewards, reference in [(more, less), (less, more)]:
        values, sample = settle_with_references(rewards, reference)
        assert count_below(values, sample).item() == 0 and count_below(values, sample, ties=True).item() == 1


def test_with_count_ties_f_is_the_papers_distribution_function(groups_of):
    objective = create("objective", "bon", {"reference_lists": 4, "best_of": 2, "scale": "none", "count_ties": True})
    advantages = objective.credit(groups_of([[0.05, 0.2, 0.4]], [[0.1, 0.2, 0.3, 0.4]])).advantages
    logs = torch.log(torch.tensor([[0.5, 2.0, 4.0]], dtype=torch.float64) / 4)  # r' <= r: none, .1 and .2, all
    torch.testing.assert_close(advantages, logs - logs.mean())


def test_proxy_reward_by_hand():
    rewards = torch.tensor([[0.0, 0.5, 2.0]], dtype=torch.float64)
    reference = torch.tensor([[0.0, 0.2, 0.5, 1.0]], dtype=torch.float64)
    proxy = proxy_reward(rewards, reference, tau=0.0, best_of=3)
    # below: 0 (floored at 0.5), 2, 4 of M = 4; times N - 1 = 2
    expected = [[2 * math.log(0.5 / 4), 2 * math.log(2 / 4), 0.0]]
    torch.testing.assert_close(proxy, torch.tensor(expected, dtype=torch.float64))


def test_advantages_are_the_standardised_proxy(groups_of):
    credit = create("objective", "bon", {"reference_lists": 4}).credit(
        groups_of([[0.0, 0.5, 2.0]], [[0.0, 0.2, 0.5, 1.0]])
    )
    logs = torch.tensor([[math.log(1 / 8), math.log(1 / 2), 0.0]], dtype=torch.float64)
    torch.testing.assert_close(credit.advantages, (logs - logs.mean()) / logs.std())
    assert credit.metrics["proxy_reward"] == pytest.approx(15 * float(logs.mean()))


def test_rewards_above_every_reference_saturate(groups_of):
    credit = create("objective", "bon").credit(groups_of([[3.0, 5.0, 9.0]], [[0.0, 1.0]]))
    assert torch.equal(credit.advantages, torch.zeros(1, 3, dtype=torch.float64))


def test_best_of_cancels_with_std_and_scales_without_it(groups_of):
    groups = groups_of([[0.0, 0.3, 2.0]], [[0.0, 0.2, 0.5, 1.0]])

    def advantages(**params):
        return create("objective", "bon", params).credit(groups).advantages

    torch.testing.assert_close(advantages(best_of=2), advantages(best_of=128))
    torch.testing.assert_close(advantages(best_of=5, scale="none"), 4 * advantages(best_of=2, scale="none"))


def test_ties_share_a_value():
    proxy = proxy_reward(
        torch.tensor([[0.5, 0.5, 0.1]], dtype=torch.float64),
        torch.tensor([[0.2, 0.5]], dtype=torch.float64),
        tau=0.0,
        best_of=2,
    )
    assert proxy[0, 0] == proxy[0, 1] > proxy[0, 2]
    assert group_advantages(proxy, "std")[0, 0] == group_advantages(proxy, "std")[0, 1]


def test_without_reference_lists_it_is_refused():
    with pytest.raises(UserError, match="reference_lists"):
        create("objective", "bon", {"reference_lists": 0})


def test_default_is_the_papers_number_of_reference_lists():
    assert create("objective", "bon").needs.reference_lists == 128
