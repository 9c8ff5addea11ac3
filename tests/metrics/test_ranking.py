"""rule, ndcg_rule and ranking: the worked example of docs/methods/rere.md, groups of ranked titles, lists alone."""

import math
from dataclasses import replace

import numpy as np
import pytest

from recalign.api import ListBatch
from recalign.plugins.registry import create

SHARES = np.array([1, 1 / math.log2(3), 0.5, 1 / math.log2(5)])
SHARES = SHARES / SHARES.sum()


@pytest.fixture
def score(catalogue):
    def call(name, lists, cutoff=None):
        reward = create("metric", name)
        reward.bind(catalogue, cutoff)
        return reward.score(lists)

    return call


def beams(groups, rows):
    """Titles of beam searches, best first: groups [P][G] of items, one row each."""
    count, size = len(groups), len(groups[0])
    return ListBatch(
        items=np.array(groups).reshape(-1, 1),
        lengths=np.ones(count * size, dtype=np.int64),
        rows=[row for row in rows for _ in range(size)],
        groups=np.repeat(np.arange(count), size),
        ranks=np.tile(np.arange(size), count),
    )


def test_worked_example_of_the_docs(score, make_row):
    lists = beams([[0, 1, 2, 3]], [make_row(targets=[2])])
    assert score("rule", lists).tolist() == [0, 0, 1, 0]
    assert score("ndcg_rule", lists) == pytest.approx([-0.3904, -0.2463, 0, -0.1681], abs=5e-5)
    assert score("ranking", lists) == pytest.approx([-0.3904, -0.2463, 1, -0.1681], abs=5e-5)


def test_all_penalties_of_a_group_would_sum_to_minus_one(score, make_row):
    lists = beams([[0, 1, 2, 3]], [make_row(targets=[2])])
    penalties = score("ndcg_rule", lists)
    assert penalties.sum() - SHARES[2] == pytest.approx(-1)
    assert penalties[[0, 1, 3]] == pytest.approx(-SHARES[[0, 1, 3]])


def test_a_group_without_a_hit_gets_nothing_and_disturbs_no_other(score, make_row):
    rows = [make_row(targets=[4]), make_row(targets=[0], index=1)]
    lists = beams([[0, 1, 2, 3], [0, 1, 2, 3]], rows)
    assert score("ranking", lists) == pytest.approx([0] * 4 + [1, *-SHARES[1:]])


def test_the_order_of_the_batch_does_not_matter(score, make_row):
    rows = [make_row(targets=[4]), make_row(targets=[0], index=1)]
    lists = beams([[3, 4, 2], [0, 1, 2]], rows)
    order = np.array([5, 0, 3, 2, 4, 1])
    mixed = replace(
        lists,
        items=lists.items[order],
        rows=[lists.rows[place] for place in order],
        groups=lists.groups[order],
        ranks=lists.ranks[order],
    )
    assert score("ranking", mixed) == pytest.approx(score("ranking", lists)[order])


def test_a_list_alone_is_its_own_group_and_sums_over_its_positions(score, make_row, make_lists):
    lists = make_lists([[2, 0, 1, 3], [0, 1, 2, 3], [0, 1, 3], []], make_row(targets=[2]))
    assert score("ranking", lists) == pytest.approx([SHARES[0], SHARES[2], 0, 0])
    assert score("ranking", lists, 2) == pytest.approx([1 / (1 + 1 / math.log2(3)), 0, 0, 0])
    assert score("rule", lists).tolist() == [1, 1, 0, 0]


def test_text_that_is_no_item_is_a_wrong_title(score, make_row, make_lists):
    assert score("ndcg_rule", make_lists([[-1, 2]], make_row(targets=[2]))) == pytest.approx(
        [-1 / (1 + 1 / math.log2(3))]
    )


def test_targets_that_are_not_relevant_are_no_hits(score, make_row):
    row = make_row(targets=[2], gains=[0.0])
    assert score("ranking", beams([[2, 1]], [row])).tolist() == [0, 0]
    assert not create("metric", "ranking").defined_for(row)
