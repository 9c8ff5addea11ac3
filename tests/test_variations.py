"""Rows with one thing changed: by hand, for the history's order, its length and the positive's place."""

import numpy as np
import pytest

from recalign.data.dataset import Row
from recalign.errors import UserError
from recalign.variations import parse_variations, vary_rows


def row(history=(3, 4, 5, 6), candidates=None, index=0, targets=(9,), gains=None, **options):
    gains = [1.0] * len(targets) if gains is None else gains
    candidates = None if candidates is None else np.array(candidates)
    arrays = {name: np.array(values) for name, values in options.items()}
    return Row(index, f"u{index}", np.array(history), np.array(targets), np.array(gains), 0.0, candidates, **arrays)


def varied(text, rows, limit=None, seed=0):
    return vary_rows(parse_variations([text]), rows, limit, seed)


def test_an_order_permutes_the_items_with_their_ratings_and_leaves_the_dates_ascending():
    one = row(times=[1.0, 2.0, 3.0, 4.0], ratings=[0.3, 0.4, 0.5, 0.6])
    found = varied("order=20", [one])
    assert [each.value for each in found] == list(range(1, 21))
    orders = {tuple(each.rows[0].history) for each in found}
    assert all(sorted(order) == [3, 4, 5, 6] for order in orders) and len(orders) > 10  # of 24
    for each in found:
        assert each.rows[0].times.tolist() == [1.0, 2.0, 3.0, 4.0]
        assert each.rows[0].ratings.tolist() == [item / 10 for item in each.rows[0].history]
        assert each.rows[0].targets.tolist() == [9]


def test_a_permutation_depends_on_seed_number_and_row_alone():
    rows = [row(range(8), index=index) for index in range(3)]
    together = varied("order=2", rows)
    assert [each.history.tolist() for each in varied("order=2", rows[2:])[1].rows] == [
        together[1].rows[2].history.tolist()
    ]
    assert together[0].rows[0].history.tolist() != together[0].rows[1].history.tolist()
    assert together[0].rows[0].history.tolist() != together[1].rows[0].history.tolist()
    assert together[0].rows[0].history.tolist() != varied("order=2", rows, seed=1)[0].rows[0].history.tolist()


def test_a_length_keeps_the_latest_items_of_the_rows_that_have_enough_and_still_excludes_the_others():
    rows = [row(earlier=[1]), row([7, 8], index=1), row([2, 3, 4], index=2)]
    found = varied("length=3,1", rows)
    assert [(each.value, [one.index for one in each.rows]) for each in found] == [(1, [0, 2]), (3, [0, 2])]
    assert [each.rows[0].history.tolist() for each in found] == [[6], [4, 5, 6]]
    assert [each.rows[0].earlier.tolist() for each in found] == [[1, 3, 4, 5], [1, 3]]
    assert {tuple(each.rows[0].consumed) for each in found} == {(1, 3, 4, 5, 6)}


def test_a_place_moves_the_positive_and_nothing_else():
    rows = [row(candidates=[5, 9, 7, 8]), row(index=1), row(candidates=[9, 5], index=2)]
    found = varied("place=1,3,4", rows)
    assert [[one.candidates.tolist() for one in each.rows] for each in found] == [
        [[9, 5, 7, 8]],
        [[5, 7, 9, 8]],
        [[5, 7, 8, 9]],
    ]


def test_of_many_rows_some_are_drawn_the_same_at_every_value():
    rows = [row(index=index) for index in range(50)]
    found = varied("length=1,2", rows, limit=5)
    drawn = [[one.index for one in each.rows] for each in found]
    assert drawn[0] == drawn[1] == sorted({*drawn[0]}) and len(drawn[0]) == 5
    assert drawn[0] != [one.index for one in varied("length=1,2", rows, limit=5, seed=1)[0].rows]


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["ordr=3"], "there is no variation 'ordr'"),
        (["order"], "not of the form order=P"),
        (["order=3,4"], "gives 2 numbers"),
        (["length=0,1"], "not of the form length=N,N"),
        (["length=1,x"], "not of the form"),
        (["length=1,1"], "repeats"),
        (["place=1", "place=2"], "repeats"),
        (["length=5"], "needs rows with a history of 5 items or more; none of the 1 has that"),
        (["place=1"], "needs rows with a positive among 1 candidates or more"),
    ],
)
def test_what_cannot_be_varied_is_told(texts, said):
    with pytest.raises(UserError, match=said):
        vary_rows(parse_variations(texts), [row()], None, 0)
