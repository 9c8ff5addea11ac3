"""List DPO: credit, hand-computed loss, prompts without a difference, parts with whole groups."""

import math

import numpy as np
import pytest
import torch

from recalign.api import PolicyBatch
from recalign.decoding.microbatches import microbatches
from recalign.objectives.list_dpo import ListDpo, ListDpoParams


def policy_batch(ratios, signs, groups):
    """Completions of two tokens; the ratio to the reference is split evenly over them."""
    ratios = torch.tensor(ratios, dtype=torch.float64)
    logps = (ratios / 2 - 1)[:, None].expand(-1, 2).clone().requires_grad_()
    return PolicyBatch(
        logps=logps,
        old_logps=logps.detach(),
        reference_logps=torch.full_like(logps, -1.0).detach(),
        advantages=torch.tensor(signs, dtype=torch.float64)[:, None].expand(-1, 2),
        mask=torch.ones_like(logps, dtype=torch.bool),
        groups=torch.tensor(groups),
    )


def test_the_best_and_the_worst_list_of_each_group_are_marked(groups_of):
    credit = ListDpo().credit(groups_of([[0.2, 0.9, 0.1, 0.9], [0.5, 0.5, 0.5, 0.5]]))
    assert credit.advantages.tolist() == [[0.0, 1.0, -1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    assert credit.metrics["reward_gap"] == pytest.approx(0.4)


def test_the_loss_is_dpos_on_best_and_worst():
    batch = policy_batch([1.0, 9.0, -1.0, 0.5, 0.5], [1.0, 0.0, -1.0, -1.0, 1.0], [0, 0, 0, 1, 1])
    value, figures = ListDpo(ListDpoParams(beta=0.5)).loss(batch)
    assert value.item() == pytest.approx((math.log1p(math.exp(-1.0)) + math.log(2)) / 2)
    assert figures == pytest.approx({"accuracy": 0.5, "margin": 0.5})


def test_the_gradient_raises_the_best_lowers_the_worst_and_leaves_the_others():
    batch = policy_batch([0.0, 0.0, 0.0], [1.0, 0.0, -1.0], [0, 0, 0])
    ListDpo().loss(batch)[0].backward()
    assert (batch.logps.grad[0] < 0).all() and (batch.logps.grad[2] > 0).all()
    assert (batch.logps.grad[1] == 0).all()


def test_prompts_without_a_difference_add_nothing_and_all_of_them_give_zero_with_a_gradient():
    batch = policy_batch([1.0, 2.0], [0.0, 0.0], [0, 0])
    value, _ = ListDpo().loss(batch)
    value.backward()
    assert value.item() == 0.0
    assert (batch.logps.grad == 0).all()


def test_it_reads_the_reference_and_needs_whole_groups():
    assert ListDpo().needs.reference_logps and ListDpo().needs.whole_groups
    prompts, lengths, groups = [np.zeros(3), np.zeros(3)], np.full(8, 10), np.repeat([0, 1], 4)
    cut = microbatches(prompts, lengths, groups, 16)
    whole = microbatches(prompts, lengths, groups, 16, whole=True)
    assert len(cut) > 2
    assert [part.rows.tolist() for part in sorted(whole, key=lambda part: part.rows[0])] == [[0, 1, 2, 3], [4, 5, 6, 7]]
