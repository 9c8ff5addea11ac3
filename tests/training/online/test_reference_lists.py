"""Reference lists: sampled once, shared by rewards, taken up again after an interruption."""

import numpy as np
import pytest
import torch

from recalign.api import UserError
from recalign.decoding.engine import PolicyEngine
from recalign.models.policy import load_policy
from recalign.training.online import reference_lists as references
from recalign.training.online.reference_lists import ReferenceKey, ReferenceLists, weights_hash
from tests.fake_dataset import write_dataset

KEY = ReferenceKey("m", "d", "compact", True, 3, 5, 0.8, 1.0, 0)
ALL = np.arange(24)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """An engine with a random tiny model, and training rows."""
    dataset = write_dataset(tmp_path_factory.mktemp("world") / "data")
    policy = load_policy("builtin:tiny,hidden=32", dataset)
    return PolicyEngine(policy, dataset.catalogue, exclude_history=True), dataset.rows("train")


def test_lists_are_sampled_once_and_found_again(world):
    engine, rows = world
    assert ReferenceLists(KEY).ensure(engine, rows, ALL) == 24
    first = ReferenceLists(KEY)
    assert first.ensure(engine, rows, ALL) == 0
    lists = first.of([rows[3], rows[20]])
    assert lists.shape == (2, 5, 3)
    assert lists.dtype == np.int32
    assert not np.isin(lists[0], rows[3].history).any()


def test_a_rows_lists_depend_on_nothing_but_the_row(world):
    engine, rows = world
    some = ReferenceLists(KEY)
    some.ensure(engine, rows, np.array([7]))
    alone = some.of([rows[7]])
    assert some.ensure(engine, rows, ALL) == 23
    assert np.array_equal(some.of([rows[7]]), alone)


def test_an_interruption_loses_no_finished_chunk(world, monkeypatch):
    engine, rows = world
    monkeypatch.setattr(references, "CHUNK", 10)
    calls = []
    sample = engine.sample

    def interrupted(chunk, **settings):
        calls.append(len(chunk))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return sample(chunk, **settings)

    monkeypatch.setattr(engine, "sample", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ReferenceLists(KEY).ensure(engine, rows, ALL)
    monkeypatch.setattr(engine, "sample", sample)
    assert len(ReferenceLists(KEY)) == 20
    assert ReferenceLists(KEY).ensure(engine, rows, ALL) == 4


def test_rollouts_never_repeat_reference_lists(world):
    engine, rows = world
    stored = ReferenceLists(KEY)
    stored.ensure(engine, rows, ALL)
    rollout = engine.sample(rows[:24], group_size=5, list_length=3, temperature=0.8, seed=0, epoch=0)
    assert (rollout.items.view(24, 5, 3).numpy() != stored.of(rows[:24])).any()


@pytest.mark.parametrize("change", [{"model": "n"}, {"lists": 6}, {"temperature": 1.0}, {"seed": 1}, {"data": "e"}])
def test_whatever_determines_the_lists_determines_their_folder(change):
    changed = ReferenceKey(**{**KEY.__dict__, **change})
    assert changed.folder != KEY.folder


def test_a_broken_file_is_named():
    KEY.folder.mkdir(parents=True)
    (KEY.folder / "00.npz").write_bytes(b"half")
    with pytest.raises(UserError, match=r"00\.npz"):
        ReferenceLists(KEY)


def test_weights_hash_sees_values_names_and_leaves_out_what_it_is_told():
    model = torch.nn.Linear(3, 2)
    first = weights_hash(model)
    without_bias = weights_hash(model, without="bias")
    with torch.no_grad():
        model.bias += 1
    assert weights_hash(model) != first
    assert weights_hash(model, without="bias") == without_bias != first
