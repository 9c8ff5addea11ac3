import numpy as np
import pytest

from recalign.preparation.interactions import ORDERS, Interactions, in_order

ROWS = Interactions(
    user=np.array([1, 0, 0, 0, 0, 1]),
    item=np.array([0, 3, 1, 2, 1, 0]),
    time=np.array([9.0, 5, 5, 2, 5, 9]),
    rating=np.array([4.0, 1, 3, 1, 2, 5]),
)


def shown(rows):
    return list(zip(rows.user.tolist(), rows.time.tolist(), rows.item.tolist(), rows.rating.tolist(), strict=True))


@pytest.mark.parametrize(
    ("ties", "ordered"),
    [
        ("file", [(0, 2, 2, 1), (0, 5, 3, 1), (0, 5, 1, 3), (0, 5, 1, 2), (1, 9, 0, 4), (1, 9, 0, 5)]),
        ("reversed", [(0, 2, 2, 1), (0, 5, 1, 2), (0, 5, 1, 3), (0, 5, 3, 1), (1, 9, 0, 5), (1, 9, 0, 4)]),
        ("item", [(0, 2, 2, 1), (0, 5, 1, 2), (0, 5, 1, 3), (0, 5, 3, 1), (1, 9, 0, 4), (1, 9, 0, 5)]),
    ],
)
def test_orders_by_hand(ties, ordered):
    assert shown(in_order(ROWS, ties, 0)) == ordered


def many(seed, count=500):
    random = np.random.default_rng(seed)
    return Interactions(
        random.integers(0, 9, count), random.integers(0, 40, count), random.integers(0, 5, count) * 1.0, None
    )


@pytest.mark.parametrize("ties", [name for name, order in ORDERS.items() if not order.of_rows])
def test_the_order_of_the_rows_decides_nothing(ties):
    rows = many(0)
    shuffled = rows.take(np.random.default_rng(1).permutation(len(rows)))
    one, other = in_order(rows, ties, 7), in_order(shuffled, ties, 7)
    for name in ("user", "item", "time"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_a_random_order_follows_the_seed_and_no_order_of_items():
    rows = many(0)
    one, other = in_order(rows, "random", 7), in_order(rows, "random", 8)
    assert (one.item != other.item).any() and (one.time == other.time).all()
    first = (one.user[1:] == one.user[:-1]) & (one.time[1:] == one.time[:-1])
    rising = (np.diff(one.item) > 0)[first].mean()
    assert 0.4 < rising < 0.6
