"""R2Rank: credit in both forms, the gradient of head and tokens, and a problem that only both together solve."""

import itertools
import math

import pytest
import torch

from recalign.api import PolicyBatch, RankBatch, Rankings, UserError
from recalign.objectives.plackett_luce import draw_orders, order_logps
from recalign.plugins.registry import create


def r2rank(**params):
    return create("objective", "r2rank", params)


def rankings(rewards):
    """Rewards [U, G, M] of orders of two candidates."""
    rewards = torch.as_tensor(rewards, dtype=torch.float64)
    rows, sets, orders = rewards.shape
    return Rankings(
        scores=torch.zeros(rows, sets, 2, dtype=torch.float64),
        orders=torch.arange(2).expand(rows, sets, orders, 2),
        rewards=rewards,
        gains=torch.tensor([[1.0, 0.0]]).expand(rows, 2),
        present=torch.ones(rows, 2, dtype=torch.bool),
    )


def doubles(values):
    return torch.tensor(values, dtype=torch.float64)


def test_the_papers_credit_is_the_reward():
    credit = r2rank(baseline=False).credit(rankings([[[0.5]], [[1.0]]]))
    torch.testing.assert_close(credit.orders, doubles([[[0.5]], [[1.0]]]))
    torch.testing.assert_close(credit.responses, doubles([[0.5], [1.0]]))


def test_orders_are_compared_with_the_others_of_their_set_and_sets_with_other_rows():
    credit = r2rank(orders=3).credit(rankings([[[0.0, 0.3, 0.9]], [[1.0, 1.0, 1.0]]]))
    torch.testing.assert_close(credit.orders[0, 0], doubles([0.0 - 0.6, 0.3 - 0.45, 0.9 - 0.15]))
    assert (credit.orders[1] == 0).all()
    torch.testing.assert_close(credit.responses, doubles([[0.4 - 1.0], [1.0 - 0.4]]))


def test_sets_of_a_row_are_compared_with_each_other():
    credit = r2rank(orders=2, sets=2).credit(rankings([[[0.0, 0.4], [0.6, 1.0]]]))
    torch.testing.assert_close(credit.responses, doubles([[-0.6, 0.6]]))


def test_a_row_alone_has_nothing_to_be_compared_with():
    assert r2rank().credit(rankings([[[0.2, 0.4]]])).responses.tolist() == [[0.0]]
    assert r2rank().needs.compares_rows
    assert not r2rank(sets=2).needs.compares_rows
    assert not r2rank(baseline=False).needs.compares_rows
    assert not r2rank(head_only=True).needs.compares_rows


@pytest.mark.parametrize("sets", [1, 2])
def test_equal_relevance_gives_a_constant_reward_and_no_gradient(sets):
    """0.1 + 0.1 + 0.1 is not 0.3 in floating point, and Adam would make a step of any residue."""
    constant = torch.full((3, sets, 7), 0.1, dtype=torch.float64)
    credit = r2rank(orders=7, sets=sets).credit(rankings(constant))
    assert (credit.orders == 0).all() and (credit.responses == 0).all()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"orders": 1}, "2 or more"),
        ({"head_only": True, "kl_beta": 0.1}, "no kl_beta"),
        ({"head_only": True, "through_head": True}, "no through_head"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(params, message):
    with pytest.raises(UserError, match=message):
        r2rank(**params)


def test_defaults_draw_16_orders_and_the_papers_form_one():
    assert r2rank().needs.orders == 16
    assert r2rank(baseline=False).needs.orders == 1
    needs = r2rank(head_only=True).needs
    assert not needs.responses and not needs.trains_model


def head_batch(scores, orders, advantages, old=None):
    gains = torch.zeros(scores.shape, dtype=torch.float64)
    present = torch.ones(scores.shape, dtype=torch.bool)
    return RankBatch(scores, orders, scores.detach() if old is None else old, advantages, gains, present)


def test_the_heads_gradient_is_reward_times_the_gradient_of_log_p():
    scores = torch.tensor([[0.2, -0.4, 1.0]], dtype=torch.float64, requires_grad=True)
    orders = torch.tensor([[[2, 0, 1], [1, 0, 2]]])
    loss, figures = r2rank().loss(head_batch(scores, orders, doubles([[0.7, 0.3]])))
    logps = order_logps(scores, orders).sum(dim=-1)[0]
    expected = -(0.7 * logps[0] + 0.3 * logps[1]) / 2
    torch.testing.assert_close(*(torch.autograd.grad(each, scores)[0] for each in (loss, expected)))
    assert figures["order_logp"] == pytest.approx(float(logps.detach().mean()))


def test_the_first_ranking_is_uniform():
    objective = r2rank()
    head = objective.module_makers["ranking_head"](8)
    scores = head(torch.randn(2, 20, 8))[..., 0]
    noise = torch.rand(2, 16, 20, generator=torch.Generator().manual_seed(0))
    orders = objective.orders(scores.detach().double(), torch.zeros(2, 20), noise, torch.ones(2, 20).bool())
    _, figures = objective.loss(head_batch(scores, orders, torch.zeros(2, 16)))
    assert figures["order_logp"] == pytest.approx(-math.lgamma(21), abs=1e-4)


def test_another_pass_over_the_same_orders_clips_their_ratio():
    old = torch.zeros(1, 2, dtype=torch.float64)
    scores = torch.tensor([[1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    orders = torch.tensor([[[0, 1]]])
    ratio = (math.e / (math.e + 1)) / 0.5  # 1.46: above 1.2
    loss, _ = r2rank(baseline=False).loss(head_batch(scores, orders, doubles([[1.0]]), old))
    assert loss.item() == pytest.approx(-1.2)
    assert torch.autograd.grad(loss, scores)[0].abs().max() == 0
    loss, _ = r2rank(baseline=False).loss(head_batch(scores, orders, doubles([[-1.0]]), old))
    assert loss.item() == pytest.approx(ratio)


def test_tokens_get_plain_sums_over_candidates_and_means_over_sets():
    random = torch.Generator().manual_seed(0)
    logps = (-torch.rand(4, 3, generator=random, dtype=torch.float64)).requires_grad_()
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]]).bool()
    worth = doubles([0.8, 0.8, -0.5, -0.5])[:, None].expand(4, 3)
    responses = PolicyBatch(logps, logps.detach(), None, worth, mask, torch.tensor([0, 0, 1, 1]))
    scores = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    orders = torch.arange(2).expand(2, 1, 2)
    batch = RankBatch(
        scores, orders, scores.detach(), torch.zeros(2, 1), torch.zeros(2, 2), torch.ones(2, 2).bool(), responses
    )
    loss, figures = r2rank(baseline=False).loss(batch)
    torch.testing.assert_close(torch.autograd.grad(loss, logps)[0], -(worth * mask) / 2)
    assert figures["clipped"] == 0.0


@pytest.mark.parametrize("baseline", [True, False])
def test_the_expected_gradient_is_that_of_all_orders_weighed_by_their_probability(baseline):
    """Enumeration of all 24 orders against the mean over many draws, with the plain reward and with the baseline."""
    scores = torch.tensor([[0.5, -0.3, 0.8, 0.0]], dtype=torch.float64, requires_grad=True)
    worth = 1.0 / torch.log2(torch.arange(2.0, 6.0, dtype=torch.float64))  # of candidate 1 at place 1 to 4

    def rewards(orders):
        return worth[(orders == 1).int().argmax(dim=-1)]

    every = torch.tensor(list(itertools.permutations(range(4))))
    logps = order_logps(scores, every[None]).sum(dim=-1)[0]
    expected = torch.autograd.grad((logps.detach().exp() * rewards(every) * logps).sum(), scores)[0]

    draws, orders = 20_000, 4 if baseline else 1
    objective = r2rank(baseline=baseline, **({"orders": orders} if baseline else {}))
    noise = torch.rand(draws, orders, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = objective.orders(
        scores.detach().expand(draws, 4), torch.zeros(draws, 4), noise, torch.ones(draws, 4).bool()
    )
    found = Rankings(
        scores.detach().expand(draws, 1, 4), drawn[:, None], rewards(drawn)[:, None], torch.zeros(draws, 4), None
    )
    advantages = objective.credit(found).orders[:, 0]
    each = scores.expand(draws, 4)
    each.retain_grad()
    loss, _ = objective.loss(head_batch(each, drawn, advantages))
    loss.backward()
    per_draw = -each.grad * draws
    error = per_draw.std(dim=0) / draws**0.5
    assert ((per_draw.mean(dim=0) - expected[0]).abs() < 4 * error + 1e-12).all()


class World:
    """Rows of one good and two bad candidates. A response is one of two words; the head sees the word, nothing else.

    The model begins with the same word for both kinds of candidates, so that no head can tell them apart.
    """

    def __init__(self, objective):
        self.objective = objective
        self.logits = torch.zeros(2, 2, requires_grad=True)  # of the words, by kind of candidate
        self.head = objective.module_makers["ranking_head"](2)
        trained = [*self.head.parameters()] + [self.logits] * objective.needs.trains_model
        self.optimizer = torch.optim.Adam(trained, lr=0.05)

    def ndcg(self):
        """Of the order by scores, in expectation over responses."""
        with torch.no_grad():
            says = self.logits.softmax(dim=-1)  # [kinds, words]
            scores = self.head(torch.eye(2))[:, 0]
            discount = 1 / torch.log2(torch.arange(2.0, 5.0))
            expected = 0.0
            for words in itertools.product(range(2), repeat=3):
                probability = says[1, words[0]] * says[0, words[1]] * says[0, words[2]]
                found = scores[list(words)]
                above, ties = int((found[1:] > found[0]).sum()), int((found[1:] == found[0]).sum())
                expected += float(probability * discount[above : above + ties + 1].mean())
            return expected

    def update(self, random, rows=16):
        objective, sets = self.objective, rows
        kinds = torch.tensor([1, 0, 0]).repeat(sets, 1)
        logps = self.logits.log_softmax(dim=-1)[kinds]  # [B, K, words]
        words = torch.multinomial(logps.detach().exp().view(-1, 2), 1, generator=random).view(sets, 3)
        scores = self.head(torch.eye(2)[words])[..., 0]
        noise = torch.rand(sets, objective.needs.orders, 3, generator=random)
        present = torch.ones(sets, 3, dtype=torch.bool)
        orders = objective.orders(scores.detach().double(), kinds.double(), noise, present)
        rewards = 1 / torch.log2((orders == 0).int().argmax(dim=-1) + 2.0).double()
        credit = objective.credit(
            Rankings(scores.detach()[:, None].double(), orders[:, None], rewards[:, None], kinds.double(), present)
        )
        said = logps.gather(-1, words[..., None]).view(-1, 1)
        worth = credit.responses.float().repeat_interleave(3, dim=0)
        responses = PolicyBatch(said, said.detach(), None, worth, torch.ones_like(said).bool())
        advantages = credit.orders[:, 0].float()
        batch = RankBatch(
            scores,
            orders,
            scores.detach(),
            advantages,
            kinds.double(),
            present,
            responses if objective.needs.responses else None,
        )
        self.optimizer.zero_grad()
        objective.loss(batch)[0].backward()
        self.optimizer.step()


@pytest.mark.parametrize("params", [{}, {"sets": 1, "baseline": False}], ids=["baseline", "paper"])
def test_only_joint_training_solves_what_the_head_cannot_see(params):
    chance = float((1 / torch.log2(torch.arange(2.0, 5.0))).mean())
    random = torch.Generator().manual_seed(3)
    alone, joint = World(r2rank(head_only=True, **params)), World(r2rank(**params))
    assert joint.ndcg() == pytest.approx(chance, abs=1e-6)
    for _ in range(150):
        alone.update(random)
        joint.update(random)
    assert alone.ndcg() == pytest.approx(chance, abs=1e-6)  # the words say nothing, whatever their scores
    assert joint.ndcg() > 0.97


def test_candidates_in_another_place_get_the_same_draws_if_their_noise_moves_with_them():
    scores, noise = torch.randn(5), torch.rand(8, 5)
    places = torch.tensor([3, 1, 4, 0, 2])
    orders, moved = draw_orders(scores, noise), draw_orders(scores[places], noise[:, places])
    assert torch.equal(places[moved], orders)
