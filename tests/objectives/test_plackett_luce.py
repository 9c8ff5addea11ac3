"""Plackett-Luce: probabilities against all permutations, the closed gradient, draws, padding, best orders."""

import itertools
import math

import pytest
import torch

from recalign.objectives.plackett_luce import best_orders, draw_orders, order_logps

SCORES = torch.tensor([0.3, -1.2, 2.0, 0.0, 0.7], dtype=torch.float64)


def all_orders(count):
    return torch.tensor(list(itertools.permutations(range(count))))


def by_hand(scores, order):
    """P(order) as the product of choices among what is left."""
    left, probability = list(order), 1.0
    for chosen in order:
        probability *= math.exp(scores[chosen]) / sum(math.exp(scores[each]) for each in left)
        left.remove(chosen)
    return probability


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_probabilities_are_products_of_choices_and_sum_to_one(count):
    scores, orders = SCORES[:count], all_orders(count)
    found = order_logps(scores, orders).sum(dim=-1).exp()
    expected = [by_hand(scores.tolist(), order) for order in orders.tolist()]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert float(found.sum()) == pytest.approx(1.0, abs=1e-12)


def test_the_gradient_is_the_closed_one_and_its_parts_sum_to_zero():
    """d log P / d s_i = 1 - sum over k up to the place of i of exp(s_i) / sum_{j >= k} exp(s_order(j))."""
    orders = all_orders(5)[::7]
    for order in orders:
        scores = SCORES.clone().requires_grad_()
        order_logps(scores, order[None]).sum().backward()
        exps = SCORES.exp()
        expected = torch.ones(5, dtype=torch.float64)
        for place, item in enumerate(order.tolist()):
            expected[item] -= sum(exps[item] / exps[order[k:]].sum() for k in range(place + 1))
        torch.testing.assert_close(scores.grad, expected)
        assert abs(float(scores.grad.sum())) < 1e-12


def test_a_common_shift_changes_nothing():
    orders = all_orders(4)
    torch.testing.assert_close(order_logps(SCORES[:4] + 50.0, orders), order_logps(SCORES[:4], orders))


def test_equal_scores_give_every_order_the_same_probability():
    orders = draw_orders(torch.zeros(20), torch.rand(6, 20, generator=torch.Generator().manual_seed(0)))
    found = order_logps(torch.zeros(20), orders).sum(dim=-1)
    torch.testing.assert_close(found, torch.full((6,), -math.lgamma(21)))
    assert found[0].item() == pytest.approx(-42.3356, abs=1e-4)


def test_one_candidate_is_certain_and_has_no_gradient():
    scores = torch.tensor([1.7], requires_grad=True)
    found = order_logps(scores, torch.zeros(1, 1, dtype=torch.int64)).sum()
    found.backward()
    assert found.item() == 0.0 and scores.grad.item() == 0.0


def test_draws_come_as_often_as_their_probability_says():
    draws = 40_000
    noise = torch.rand(draws, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drawn = draw_orders(SCORES[:3], noise)
    orders = all_orders(3)
    share = (drawn[:, None] == orders).all(dim=-1).double().mean(dim=0)
    expected = order_logps(SCORES[:3], orders).sum(dim=-1).exp()
    assert float((share - expected).abs().max()) < 4 * (0.25 / draws) ** 0.5


def test_the_noise_at_its_ends_leaves_an_order():
    noise = torch.tensor([[0.0, 1 - 2**-53, 0.5]], dtype=torch.float64)
    assert draw_orders(torch.zeros(3), noise).tolist() == [[1, 2, 0]]


def test_padding_comes_last_and_weighs_nothing():
    present = torch.tensor([True, False, True, True])
    padded = torch.tensor([0.3, 9.0, -1.2, 2.0], dtype=torch.float64, requires_grad=True)
    noise = torch.rand(50, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    orders = draw_orders(padded.detach(), noise, present)
    assert (orders[:, 3] == 1).all()
    found = order_logps(padded, orders, present)
    bare = SCORES[:3].clone().requires_grad_()
    expected = order_logps(bare, torch.tensor([0, -1, 1, 2])[orders[:, :3]])
    torch.testing.assert_close(found.sum(dim=-1), expected.sum(dim=-1))
    found.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(padded.grad[present], bare.grad)
    assert padded.grad[1] == 0.0
    best = best_orders(torch.tensor([0.0, 5.0, 1.0, 0.0]), noise, present)
    assert (best[:, 0] == 2).all() and (best[:, 3] == 1).all()


def test_best_orders_follow_gains_and_draw_ties():
    gains = torch.tensor([0.0, 2.0, 0.0, 3.0, 0.0])
    noise = torch.rand(3000, 5, generator=torch.Generator().manual_seed(3))
    orders = best_orders(gains, noise)
    assert (orders[:, 0] == 3).all() and (orders[:, 1] == 1).all()
    third = torch.stack([(orders[:, 2] == item).double().mean() for item in (0, 2, 4)])
    assert float((third - 1 / 3).abs().max()) < 0.04


def test_batches_are_computed_row_by_row():
    scores = torch.stack([SCORES, SCORES.flip(0)])
    orders = torch.stack([all_orders(5)[:7], all_orders(5)[30:37]])
    found = order_logps(scores, orders)
    for row in range(2):
        torch.testing.assert_close(found[row], order_logps(scores[row], orders[row]))
