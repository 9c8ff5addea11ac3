import math

import pytest
import torch

from recalign.decoding.attention_rule import AttentionRule


def test_caps_squash_and_sinks_take_their_share():
    rule = AttentionRule(1.0, cap=2.0, sinks=torch.tensor([0.0, math.log(3.0)]))
    torch.testing.assert_close(rule.capped(torch.tensor([2.0, -1e9])), torch.tensor([2 * math.tanh(1), -2.0]))
    # Two query heads of one key head, two places of score 0 each: exp(0) = 1 of a mass of 2 + sink
    weights = rule.weights(torch.zeros(1, 2, 2), heads=1)
    torch.testing.assert_close(weights, torch.tensor([[[1 / 3, 1 / 3], [1 / 5, 1 / 5]]]))
    left = rule.left_by_sinks(torch.ones(1, 2, 1), torch.full((1, 2, 1), math.log(2.0)))
    torch.testing.assert_close(left, torch.tensor([[[2 / 3], [2 / 5]]]))


@pytest.mark.parametrize("causal", [True, False])
def test_without_caps_or_sinks_both_ways_are_one(causal):
    torch.manual_seed(0)
    queries, keys, values = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)
    seen = None if causal else torch.rand(2, 1, 5, 5) < 0.5
    if seen is not None:
        seen[..., 0] = True
    plain = AttentionRule(0.3).attend(queries, keys, values, seen)
    huge, none = AttentionRule(0.3, cap=1e6), AttentionRule(0.3, sinks=torch.full((4,), -1e4))
    torch.testing.assert_close(huge.attend(queries, keys, values, seen), plain, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(none.attend(queries, keys, values, seen), plain, atol=1e-5, rtol=1e-5)
