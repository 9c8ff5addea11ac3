"""Rows that vary from epoch to epoch."""

import numpy as np

from recalign.data.dataset import Row
from recalign.training.offline.examples import Augmentation

ROW = Row(3, "u", np.arange(20), np.arange(20, 30), np.arange(10.0), 0.0)


def test_targets_come_in_a_fresh_order_with_their_gains_every_epoch():
    augmentation = Augmentation(shuffle_targets=True, seed=1)
    first, second = augmentation.vary(ROW, 0), augmentation.vary(ROW, 1)
    assert sorted(first.targets) == list(range(20, 30))
    assert list(first.targets) != list(second.targets)
    assert list(first.gains) == [target - 20 for target in first.targets]
    assert list(first.history) == list(ROW.history)


def test_a_row_is_the_same_again_for_the_same_seed_and_epoch():
    augmentation = Augmentation(shuffle_targets=True, history_dropout=0.5, seed=7)
    again, once = augmentation.vary(ROW, 4), augmentation.vary(ROW, 4)
    assert list(again.history) == list(once.history)
    assert list(again.targets) == list(once.targets)
    assert list(Augmentation(True, 0.5, seed=8).vary(ROW, 4).history) != list(once.history)


def test_history_dropout_leaves_out_its_share_in_order_and_never_everything():
    kept = [Augmentation(history_dropout=0.3, seed=seed).vary(ROW, 0).history for seed in range(400)]
    assert abs(np.mean([len(history) for history in kept]) / 20 - 0.7) < 0.02
    assert all((np.diff(history) > 0).all() for history in kept)
    lonely = Row(0, "u", np.array([5]), np.array([6]), np.ones(1), 0.0)
    assert list(Augmentation(history_dropout=0.9, seed=2).vary(lonely, 0).history) == [5]
