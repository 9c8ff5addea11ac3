import numpy as np
from scipy import stats

from recalign.decoding.random_numbers import random_keys, uniforms


def test_a_number_depends_on_its_address_only():
    keys = random_keys(3, 1, [10, 11, 12], 4)
    assert len(set(keys.tolist())) == 12
    assert (keys[4:8] == random_keys(3, 1, [11], 4)).all()
    assert (keys.reshape(3, 4)[:, :2] == random_keys(3, 1, [10, 11, 12], 2).reshape(3, 2)).all()
    together = uniforms(keys, np.arange(12))
    assert together[5] == uniforms(keys[5:6], np.array([5]))[0]


def test_seed_epoch_row_and_place_each_change_the_stream():
    base = random_keys(0, 0, [0], 2)
    others = [random_keys(1, 0, [0], 2), random_keys(0, 1, [0], 2), random_keys(0, 0, [1], 2)]
    assert len({*base.tolist(), *(key for other in others for key in other.tolist())}) == 8


def test_numbers_are_uniform_along_streams_and_across_them():
    keys = random_keys(0, 0, range(2000), 4)
    across = uniforms(keys, np.zeros(len(keys), dtype=np.int64))
    along = uniforms(np.repeat(keys[:8], 1000), np.tile(np.arange(1000), 8))
    for numbers in (across, along):
        assert stats.kstest(numbers, "uniform").pvalue > 0.01
        assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.04
