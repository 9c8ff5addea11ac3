"""Negatives: never a target or an excluded item, none twice, decided by seed, epoch and row; too few are an error."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from recalign.api import INVALID, UserError
from recalign.data.dataset import Rows
from recalign.decoding.engine import PolicyEngine
from recalign.models.policy import load_policy
from recalign.training.offline.negatives import SOURCES, Negatives, Rejected
from tests.fake_dataset import write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("negatives") / "data", task="next")


@pytest.fixture(scope="module")
def world(dataset):
    policy = load_policy("builtin:tiny,hidden=16,heads=2", dataset)
    return PolicyEngine(policy, dataset.catalogue, exclude_history=True), dataset.rows("train")[:8]


@pytest.mark.parametrize("source", SOURCES)
def test_negatives_are_distinct_and_neither_targets_nor_excluded(world, source):
    engine, rows = world
    drawn = Negatives(engine, source, 1 if source == "greedy" else 4, 0).draw(rows, 0)
    for row, items in zip(rows, drawn, strict=True):
        named = items[items != INVALID]
        assert len(set(named)) == len(named) > (-1 if source == "greedy" else 0)
        assert not np.isin(named, [*row.targets, *row.history]).any()


@pytest.mark.parametrize("source", ["uniform", "popularity", "batch"])
def test_a_row_draws_the_same_whatever_is_in_the_batch_and_anew_every_epoch(world, source):
    engine, rows = world
    negatives = Negatives(engine, source, 3, 0)
    assert np.array_equal(negatives.draw(rows, 1), negatives.draw(rows, 1))
    assert not np.array_equal(negatives.draw(rows, 0), negatives.draw(rows, 1))
    if source != "batch":
        assert np.array_equal(negatives.draw(rows[3:5], 1), negatives.draw(rows, 1)[3:5])


def test_popular_items_are_drawn_by_their_share(world):
    engine, rows = world
    negatives = Negatives(engine, "popularity", 1, 0)
    row = rows[0]
    drawn = np.concatenate([negatives.draw([row], epoch)[0] for epoch in range(3000)])
    free = np.setdiff1d(np.arange(20), [*row.targets, *row.history])
    popularity = engine.catalogue.popularity[free]
    share = np.array([(drawn == item).mean() for item in free])
    np.testing.assert_allclose(share, popularity / popularity.sum(), atol=0.03)


def test_in_batch_negatives_are_the_other_rows_targets_and_may_be_fewer(world):
    engine, rows = world
    drawn = Negatives(engine, "batch", 4, 0).draw(rows[:3], 0)
    targets = {int(row.targets[0]) for row in rows[:3]}
    for row, items in zip(rows, drawn, strict=False):
        assert set(items[items != INVALID]) <= targets - {int(row.targets[0])}
        assert items[-1] == INVALID
    assert (Negatives(engine, "batch", 2, 0).draw(rows[:1], 0) == INVALID).all()


def test_the_policys_own_negatives_are_what_it_would_recommend(world):
    engine, rows = world
    drawn = Negatives(engine, "self", 2, 0).draw(rows, 0)
    found = engine.beam(rows, width=3, size=3)[0].numpy()
    for row, items, best in zip(rows, drawn, found, strict=True):
        assert items.tolist() == [item for item in best if item not in row.targets][:2]


def test_more_negatives_than_items_are_refused(world):
    engine, rows = world
    with pytest.raises(UserError, match="20 negatives are asked for, and the catalogue has 20 items"):
        Negatives(engine, "uniform", 20, 0)
    for source in ("uniform", "popularity", "self"):
        with pytest.raises(UserError, match="User u0 has 14 items left to reject, and 15"):
            Negatives(engine, source, 15, 0).draw(rows, 0)


@pytest.mark.parametrize("source", ["uniform", "popularity", "self"])
def test_rows_with_too_few_items_are_found_before_anything_is_drawn(dataset, world, source):
    engine, rows = world
    for some in (rows, dataset.rows("train")):  # 20 items, of which 5 are in the history and 1 is the target
        Negatives(engine, source, 14, 0).check(some)
        with pytest.raises(UserError, match="User u0 has 14 items left to reject, and 15"):
            Negatives(engine, source, 15, 0).check(some)
    Negatives(engine, "batch", 15, 0).check(rows)  # may find fewer


def test_where_the_longest_row_leaves_enough_no_row_is_read(dataset, world, monkeypatch):
    monkeypatch.setattr(Rows, "__getitem__", None)
    Negatives(world[0], "uniform", 14, 0).check(dataset.rows("train"))
    with pytest.raises(TypeError):  # a row would have been read
        dataset.rows("train")[0]


def test_the_row_with_the_fewest_items_is_named(world):
    engine, rows = world
    short = [*rows[:3], replace(rows[3], earlier=np.array([rows[3].targets[0] + 1])), *rows[4:]]
    with pytest.raises(UserError, match="User u3 has 13 items left"):
        Negatives(engine, "uniform", 15, 0).check(short)
    only = replace(rows[2], candidates=np.array([rows[2].targets[0], 0, 1]))
    with pytest.raises(UserError, match="User u2 has 2 items left"):
        Negatives(engine, "uniform", 3, 0).check([*short, only])


def test_a_batch_that_never_has_as_many_other_targets_is_refused(world):
    Negatives(world[0], "batch", 3, 0, batch_size=4)
    with pytest.raises(UserError, match="3 negatives are asked for, and in a batch of 3 a row has 2 others"):
        Negatives(world[0], "batch", 3, 0, batch_size=3)


def test_the_greedy_title_is_rejected_unless_it_is_the_target(world):
    engine, rows = world
    best = engine.greedy(rows, list_length=1).items[:, 0].numpy()
    rows = [
        replace(row, targets=np.array([item])) if place % 2 else row
        for place, (row, item) in enumerate(zip(rows, best, strict=True))
    ]
    drawn = Negatives(engine, "greedy", 1, 0).draw(rows, 0)[:, 0]
    expected = [INVALID if item in row.targets else item for row, item in zip(rows, best, strict=True)]
    assert drawn.tolist() == expected and INVALID in expected and set(expected) != {INVALID}
    with pytest.raises(UserError, match="2 negatives are asked for, and the policy decodes one title greedily"):
        Negatives(engine, "greedy", 2, 0)


def test_titles_drawn_before_come_by_their_rows():
    rejected = Rejected(np.array([[4, 5], [6, INVALID]]), np.array([30, 10]))
    rows = [SimpleNamespace(index=10), SimpleNamespace(index=30)]
    assert rejected.draw(rows, 3).tolist() == [[6, INVALID], [4, 5]]
