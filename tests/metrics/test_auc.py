"""auc against scipy's Mann-Whitney statistic."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from recalign.api import ListBatch, Row
from recalign.metrics.auc import Auc


class Catalogue12:
    def __len__(self) -> int:
        return 12


def batch(items, rows, lengths=None):
    items = np.asarray(items)
    return ListBatch(
        items, np.full(len(items), items.shape[1]) if lengths is None else lengths, rows, np.arange(len(items))
    )


def row(candidates, positives):
    return Row(0, "u", np.array([0]), np.array(positives), np.ones(len(positives)), 0.0, np.array(candidates))


def auc():
    metric = Auc()
    metric.catalogue, metric.cutoff = Catalogue12(), None
    return metric


@pytest.mark.parametrize("positives", [1, 3])
def test_it_is_the_rank_sum_over_the_number_of_pairs(positives):
    random = np.random.default_rng(0)
    rows, lists, expected = [], [], []
    for _ in range(20):
        candidates = random.permutation(12)[:8]
        chosen, scores = candidates[:positives], random.normal(size=8)
        rows.append(row(random.permutation(candidates), chosen))
        lists.append(candidates[np.argsort(-scores)])
        statistic = mannwhitneyu(scores[:positives], scores[positives:]).statistic
        expected.append(statistic / (positives * (8 - positives)))
    np.testing.assert_allclose(auc().score(batch(lists, rows)), expected)


def test_what_a_list_leaves_out_counts_half_a_pair_with_what_it_leaves_out_too():
    """Positive 3 of candidates 1..4; the list [1, 2] leaves out 3 and 4: 0 right of two pairs, and half of one."""
    assert auc().score(batch([[1, 2]], [row([1, 2, 3, 4], [3])])) == pytest.approx([0.5 / 3])
    assert auc().score(batch([[3, 2]], [row([1, 2, 3, 4], [3])])) == pytest.approx([1.0])


def test_rows_without_two_kinds_of_candidates_are_left_out():
    assert auc().defined_for(row([1, 2], [1]))
    assert not auc().defined_for(row([1, 2], [1, 2])) and not auc().defined_for(row([1, 2], [5]))
    assert not auc().defined_for(Row(0, "u", np.array([0]), np.array([1]), np.ones(1), 0.0))
