import itertools

import numpy as np
import pytest
import scipy.stats

from recalign.evaluation.significance import bootstrap_interval, holm, paired, signed_rank_p

RNG = np.random.default_rng(0)
VALUES = RNG.gamma(1.0, 1.0, 300)


def test_the_interval_agrees_with_scipy():
    ours = bootstrap_interval(VALUES, seed=1, resamples=20_000)
    theirs = scipy.stats.bootstrap(
        (VALUES,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert ours.mean == pytest.approx(VALUES.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.005)


def test_the_same_seed_gives_the_same_interval_and_chunks_change_nothing(monkeypatch):
    first = bootstrap_interval(VALUES, seed=3)
    assert first == bootstrap_interval(VALUES, seed=3)
    assert first != bootstrap_interval(VALUES, seed=4)
    monkeypatch.setattr("recalign.evaluation.significance.CHUNK", 1000)
    assert first == bootstrap_interval(VALUES, seed=3)


def test_rows_of_one_user_stand_or_fall_together():
    users = np.repeat(np.arange(30), 10)
    values = np.repeat(RNG.normal(size=30), 10)  # ten copies of each user's value carry no more than one
    clustered = bootstrap_interval(values, users=users)
    single = bootstrap_interval(values[::10])
    naive = bootstrap_interval(values)
    assert clustered.mean == pytest.approx(values.mean())
    assert clustered.high - clustered.low == pytest.approx(single.high - single.low, rel=0.1)
    assert naive.high - naive.low < 0.5 * (clustered.high - clustered.low)


def test_users_with_more_rows_weigh_more_in_the_mean():
    interval = bootstrap_interval(np.array([1.0, 1.0, 1.0, 5.0]), users=np.array(["a", "a", "a", "b"]))
    assert interval.mean == 2.0
    assert (interval.low, interval.high) == (1.0, 5.0)


def test_no_values_give_no_interval():
    assert bootstrap_interval(np.array([])).as_dict() == {"mean": None, "low": None, "high": None, "n": 0}


def test_paired_by_hand():
    result = paired(np.array([0.0, 1.0, 2.0, 0.0]), np.array([1.0, 1.0, 1.0, 3.0]))
    assert result.difference.mean == pytest.approx(0.75)
    assert (result.wins, result.losses, result.ties, result.tie_share) == (2, 1, 1, 0.25)


def test_users_without_a_difference_are_left_out_of_the_test_and_counted():
    # Three positive differences of different size and no other: p = 2 * (1/2)^3, whatever number of zeros stands by.
    after = np.array([0.1, 0.2, 0.3, 0.0, 0.0])
    result = paired(np.zeros(5), after)
    assert (result.p, result.ties, result.tie_share) == (pytest.approx(0.25), 2, 0.4)
    assert result.p == pytest.approx(paired(np.zeros(3), after[:3]).p)
    assert paired(np.zeros(0), np.zeros(0)).tie_share is None


@pytest.mark.parametrize("size", [1, 3, 20, 50, 51, 400])
def test_wilcoxon_agrees_with_scipy(size):
    before, after = RNG.normal(size=size), RNG.normal(0.3, 1, size=size)
    expected = scipy.stats.wilcoxon(after - before, method="exact" if size <= 50 else "asymptotic").pvalue
    assert paired(before, after).p == pytest.approx(expected)


@pytest.mark.parametrize("alike", [0, 95])
def test_those_without_a_difference_change_no_p(alike):
    """scipy's own choice of a method counts them: .025 here, and .052 below."""
    nothing = np.zeros(alike)
    assert paired(np.zeros(5 + alike), np.append(np.ones(5), nothing)).p == 2 / 2**5
    votes = np.repeat([1.0, -1.0], [3, 10])
    expected = scipy.stats.binomtest(3, 13).pvalue  # differences of one size: the test of signs
    assert paired(np.zeros(13 + alike), np.append(votes, nothing)).p == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(8))
def test_equal_differences_are_tested_by_all_their_signs(seed):
    random = np.random.default_rng(seed)
    sizes = random.choice([0.2, 0.5, 0.5, 1.0], size=9)
    signs = np.array(list(itertools.product([-1, 1], repeat=9)))
    ranks = scipy.stats.rankdata(sizes)
    uneven = np.abs(signs @ ranks)
    for chosen in signs[random.permutation(len(signs))[:20]]:
        expected = (uneven >= abs(chosen @ ranks)).mean()
        assert signed_rank_p(sizes * chosen) == pytest.approx(expected)


def test_many_equal_differences_are_as_a_test_of_signs():
    assert signed_rank_p(np.repeat([0.3, -0.3], [30, 16])) == pytest.approx(scipy.stats.binomtest(30, 46).pvalue)
    assert signed_rank_p(np.zeros(7)) == 1.0


def test_wilcoxon_is_over_users():
    before, after = RNG.normal(size=40), RNG.normal(0.5, 1, size=40)
    once = paired(before, after)
    twice = paired(np.repeat(before, 2), np.repeat(after, 2), users=np.repeat(np.arange(40), 2))
    assert twice.p == pytest.approx(once.p)
    assert (twice.wins, twice.losses) == (once.wins, once.losses)


@pytest.mark.parametrize("scale", [1e-200, 1e-13, 1e6])
def test_the_test_does_not_depend_on_the_scale(scale):
    before, after = RNG.normal(size=50), RNG.normal(0.3, 1, size=50)
    plain, scaled = paired(before, after), paired(before * scale, after * scale)
    assert (scaled.p, scaled.wins, scaled.losses) == (pytest.approx(plain.p), plain.wins, plain.losses)
    third = np.full(6, 0.1 + 0.2) * scale
    assert paired(third, np.full(6, 0.3) * scale).p == 1.0  # rounding is no difference


def test_equal_systems_have_p_one():
    result = paired(VALUES, VALUES)
    assert result.p == 1.0
    assert (result.difference.low, result.difference.high) == (0.0, 0.0)


def test_holm_by_hand():
    # sorted: .01*4, .02*3, .03*2, .04*1 -> .04, .06, .06, .06 (never falling)
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.5]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []
