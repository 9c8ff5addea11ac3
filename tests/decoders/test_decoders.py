from dataclasses import replace

import numpy as np
import pytest

from recalign.api import Decoder, Predictions
from recalign.decoders.bon import first_best
from recalign.decoding.batches import check_task, decode_rows
from recalign.errors import UserError
from recalign.plugins import registry
from recalign.tasks import find_task
from tests.decoding.doubles import make_engine, random_paths, row

PATHS = random_paths(30)


def rows(count=5):
    return [row(i, np.random.default_rng(i).integers(0, 30, size=1 + i % 3).tolist()) for i in range(count)]


@pytest.mark.parametrize("name", ["greedy", "sample", "bon"])
def test_list_decoders_rank_the_models_own_list(name):
    engine = make_engine(PATHS, exclude_history=True)
    found = decode_rows(engine, registry.create("decoder", name), rows(), 4)
    assert found.items.shape == found.scores.shape == (5, 4)
    assert found.lengths.tolist() == [4] * 5
    for items, scores, one in zip(found.items.tolist(), found.scores, rows(), strict=True):
        assert len({*items}) == 4 and not {*items} & {*one.history.tolist()}
        assert (np.diff(scores) < 0).all()


@pytest.mark.parametrize("name", ["greedy", "sample", "bon"])
def test_list_decoders_give_one_title_on_the_next_task(name):
    found = decode_rows(make_engine(PATHS, task="next"), registry.create("decoder", name), rows(), 10)
    assert found.items.shape == (5, 10)
    assert found.lengths.tolist() == [1] * 5 and (found.items[:, 1:] == -1).all()


@pytest.mark.parametrize("name", ["greedy", "sample", "bon"])
def test_lists_longer_than_the_trained_ones_are_refused(name):
    with pytest.raises(UserError, match="have 5 items, not 6"):
        decode_rows(make_engine(PATHS), registry.create("decoder", name), rows(), 6)


def test_best_of_one_is_sampling():
    engine = make_engine(PATHS)
    one = decode_rows(engine, registry.create("decoder", "bon", {"n": 1, "reward": "ild"}), rows(), 3)
    sampled = decode_rows(engine, registry.create("decoder", "sample"), rows(), 3)
    assert one.items.tolist() == sampled.items.tolist()


def test_best_of_n_keeps_the_list_that_the_reward_likes():
    engine = make_engine(PATHS)
    decoder = registry.create("decoder", "bon", {"n": 6, "reward": "recall@3", "allow_oracle": True})
    first = engine.sample(rows(), group_size=6, list_length=3, temperature=0.8).items.view(5, 6, 3)
    wanted = [replace(one, targets=lists[4, :1].numpy()) for one, lists in zip(rows(), first, strict=True)]
    found = decode_rows(engine, decoder, wanted, 3)
    lists = engine.sample(wanted, group_size=6, list_length=3, temperature=0.8).items.view(5, 6, 3)
    hits = (lists == lists[:, 4:5, :1]).any(dim=2)
    assert hits.any(dim=1).all() and not hits[:, 0].all()
    for kept, options, hit in zip(found.items.tolist(), lists.tolist(), hits.tolist(), strict=True):
        assert kept == options[hit.index(max(hit))]


@pytest.mark.parametrize(("kind", "name"), [("decoder", "sample"), ("decoder", "bon"), ("objective", "grpo")])
def test_temperatures_at_which_logits_overflow_are_refused(kind, name):
    with pytest.raises(UserError, match=r"temperature = .*0\.01"):
        registry.create(kind, name, {"temperature": 1e-40})


def test_the_coldest_samples_are_greedy_lists():
    engine = make_engine(PATHS, exclude_history=True)
    cold = decode_rows(engine, registry.create("decoder", "sample", {"temperature": 0.01}), rows(), 4)
    assert cold.items.tolist() == decode_rows(engine, registry.create("decoder", "greedy"), rows(), 4).items.tolist()


def test_oracles_must_be_asked_for():
    with pytest.raises(UserError, match="is an oracle"):
        registry.create("decoder", "bon", {"reward": "ndcg@5"})
    assert registry.create("decoder", "bon", {"reward": "ndcg@5", "allow_oracle": "true"}).oracle
    assert not registry.create("decoder", "bon", {"reward": "ild"}).oracle


@pytest.mark.parametrize("name", ["beam", "exact"])
def test_searches_rank_titles_by_score(name):
    found = decode_rows(make_engine(PATHS, task="next"), registry.create("decoder", name), rows(), 10)
    assert found.lengths.tolist() == [10] * 5
    assert (np.diff(found.scores, axis=1) <= 0).all()
    assert all(len({*items}) == 10 for items in found.items.tolist())


def test_exact_search_counts_the_nodes_that_it_opens():
    engine = make_engine(PATHS, task="next")
    decode_rows(engine, registry.create("decoder", "exact"), rows(), 10)
    assert 5 <= engine.cost.nodes_opened < 5 * engine.trie.nodes


def test_positions_without_a_title_score_below_the_others():
    engine = make_engine(random_paths(4), task="next")
    found = decode_rows(engine, registry.create("decoder", "beam", {"width": 10}), rows(), 6)
    assert found.lengths.tolist() == [4] * 5
    assert np.isfinite(found.scores).all()
    assert (found.scores[:, 4:].max(axis=1) < found.scores[:, :4].min(axis=1)).all()


def test_a_decoder_for_another_task_is_refused():
    with pytest.raises(UserError, match="'beam' serves the task next, not 'list'"):
        check_task(registry.create("decoder", "beam"), find_task("list"))


def test_batches_change_nothing():
    engine = make_engine(PATHS)
    decoder = registry.create("decoder", "sample")
    whole, parts = (decode_rows(engine, decoder, rows(), 3, size) for size in (256, 2))
    assert whole.items.tolist() == parts.items.tolist()


def test_free_text_shows_what_the_model_would_write():
    decoder = registry.create("decoder", "greedy", {"constrained": "false"})
    found = decode_rows(make_engine(PATHS), decoder, rows(), 3)
    assert (found.items == -1).any()


class Broken(Decoder):
    def decode(self, engine, rows, size):
        raise ZeroDivisionError("oops")


class Short(Decoder):
    def decode(self, engine, rows, size):
        return Predictions(np.zeros((1, size), dtype=int), np.zeros((1, size)), np.array([size]))


def test_a_decoder_plugin_that_raises_is_named():
    with pytest.raises(UserError, match=r"'broken' of module \S+ raised ZeroDivisionError in decode: oops"):
        decode_rows(make_engine(PATHS), Broken(), rows(), 3)


def test_a_decoder_plugin_of_the_wrong_shape_is_named():
    with pytest.raises(UserError, match=r"'short' of module \S+ returned items \[1, 3\].*for 5 rows"):
        decode_rows(make_engine(PATHS), Short(), rows(), 3)


@pytest.mark.parametrize("scale", [1e-300, 1e-12, 1.0, 1e6])
def test_of_lists_that_are_equally_good_but_for_rounding_the_first_is_kept(scale):
    scores = np.array([[0.0, 0.3, 0.1 + 0.2], [0.0, 1e-9, 3e-9], [-3.0, -1.0, -1.0], [0.0, 0.0, 0.0]]) * scale
    assert first_best(scores).tolist() == [1, 2, 1, 0]
