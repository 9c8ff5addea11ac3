import numpy as np
import pytest

from recalign.errors import UserError
from recalign.preparation.interactions import Interactions
from recalign.preparation.prepare_options import resolve
from recalign.preparation.rules import Account, core, frequent, popular, rules_of

NAN = float("nan")
DAY = 86_400.0
ROWS = Interactions(
    user=np.array([0, 0, 0, 1, 1, 2]),
    item=np.array([0, 1, 2, 0, 1, 0]),
    time=np.array([1, 2, 3, 4, 5, 6]) * DAY + 1e9,  # from 2001-09-10 on
    rating=np.array([5, 4, 1, NAN, 5, 3]),
)


def follow(rows=ROWS, **options):
    account = Account()
    kept = account.apply(rules_of(resolve(options, {})), rows)
    return list(zip(kept.user.tolist(), kept.item.tolist(), strict=True)), account.steps


def naive_core(pairs, k):
    while True:
        users = {u for u, _ in pairs if sum(v == u for v, _ in pairs) >= k}
        kept_items = {i for _, i in pairs if sum(j == i for _, j in pairs) >= k}
        left = [(u, i) for u, i in pairs if u in users and i in kept_items]
        if left == pairs:
            return pairs
        pairs = left


@pytest.mark.parametrize("k", [2, 3, 4, 6])
def test_k_core_equals_the_naive_iteration(k):
    random = np.random.default_rng(k)
    user, item = random.integers(0, 12, 80), random.integers(0, 15, 80)
    alive = core(user, item, k)
    assert list(zip(user[alive], item[alive], strict=True)) == naive_core(list(zip(user, item, strict=True)), k)


def test_popularity_cut_keeps_the_top_percent_of_the_items_that_occur():
    item = np.array([0, 0, 0, 1, 1, 2, 4])
    assert popular(item, 50.0).tolist() == [True] * 5 + [False] * 2


def test_a_minimum_of_users_is_applied_once():
    assert frequent(np.array([0, 0, 1, 2, 2, 2]), 2).tolist() == [True, True, False, True, True, True]
    kept, _ = follow(min_user_interactions=2, min_item_interactions=2)
    assert kept == [(0, 0), (0, 1), (1, 0), (1, 1)]  # item 2 goes; user 0 stays, whatever it has left
    assert follow(min_user_interactions=3)[0] == [(0, 0), (0, 1), (0, 2)]


def test_a_minimum_of_ratings_leaves_out_lower_ones_and_missing_ones():
    assert follow(min_rating=4)[0] == [(0, 0), (0, 1), (1, 1)]
    for rating in (None, np.full(6, NAN)):
        with pytest.raises(UserError, match="--min-rating 4 reads ratings"):
            follow(Interactions(ROWS.user, ROWS.item, ROWS.time, rating), min_rating=4)


@pytest.mark.parametrize("scale", [1, 1e3, 1e6, 1e9])
def test_dates_compare_with_times_of_any_unit(scale):
    rows = Interactions(ROWS.user, ROWS.item, ROWS.time * scale, None)
    assert follow(rows, since="2001-09-12", until="2001-09-14T01:46:40")[0] == [(0, 2), (1, 0)]


def test_numbers_compare_with_times_as_they_are():
    rows = Interactions(ROWS.user, ROWS.item, np.arange(6.0), None)
    assert follow(rows, since="2", until="4")[0] == [(0, 2), (1, 0)]
    with pytest.raises(UserError, match="numbers from 0 to 5"):
        follow(rows, since="2001-09-12")


def test_every_rule_tells_what_it_leaves():
    _, steps = follow(since="2001-09-11", min_rating=3, popularity_cut=50, k_core=1)
    assert steps == [
        {"rule": "--since 2001-09-11", "left_out": 1, "interactions": 5, "users": 3, "items": 3},
        {"rule": "--min-rating 3", "left_out": 2, "interactions": 3, "users": 3, "items": 2},
        {"rule": "--popularity-cut 50", "left_out": 1, "interactions": 2, "users": 2, "items": 1},
    ]


def test_a_rule_that_leaves_nothing_is_named_with_those_before_it():
    with pytest.raises(UserError) as error:
        follow(min_rating=5, k_core=3)
    assert "No interaction is left of 2 after --k-core 3" in error.value.what
    assert error.value.hint == "Loosen --k-core, or what comes before it."
