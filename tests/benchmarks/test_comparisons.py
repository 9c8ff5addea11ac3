"""The parts that keep the comparison honest: the dict trie, the equality check, paired ratios, generated titles."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from recalign.text.item_tokens import TitleTokens

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def modules():
    sys.path.insert(0, str(FOLDER))
    try:
        yield {name: importlib.import_module(name) for name in ("inference", "peers", "timing", "machine", "setting")}
    finally:
        sys.path.remove(str(FOLDER))


def titles(*paths):
    return TitleTokens([np.array(path) for path in paths], np.array([9]), end=2)


def test_dict_trie_allows_an_end_where_a_title_begins_another(modules):
    trie = modules["peers"].DictTrie(titles([5, 6], [5, 6, 7], [8]))
    assert sorted(trie.valid([])) == [5, 8]
    assert sorted(trie.valid([5, 6])) == [2, 7]
    assert trie.valid([5, 6, 7]) == [2]
    assert trie.valid([8, 2]) == [2]
    assert trie.item([5, 6, 2, 2]) == 0


def test_dict_trie_of_lists_goes_back_to_the_root_and_repeats_no_title(modules):
    trie = modules["peers"].DictTrie(titles([5, 6], [5, 7], [8]), list_length=3)
    assert trie.valid([8]) == [9]
    assert trie.valid([8, 9]) == [5]
    assert trie.valid([5, 6, 9, 5]) == [7]
    assert trie.valid([5, 6, 9, 5, 7, 9]) == [8]
    assert trie.valid([5, 6, 9, 5, 7, 9, 8]) == [2]


def test_unlike_results_are_refused(modules):
    same_lists = modules["inference"].same_lists
    items, scores = np.array([[1, 2, 3]]), np.array([[-1.0, -2.0, -3.0]])
    same_lists(items, scores, items, scores + 1e-6)
    with pytest.raises(AssertionError, match="scores differ"):
        same_lists(items, scores, items, scores + 0.01)
    with pytest.raises(AssertionError, match="items differ"):
        same_lists(items, scores, items[:, ::-1], scores)


def test_items_of_equal_score_may_change_places(modules):
    scores = np.array([[-1.0, -2.0, -2.0]])
    modules["inference"].same_lists(np.array([[1, 2, 3]]), scores, np.array([[1, 3, 2]]), scores)


def test_the_ratio_is_the_median_over_pairs(modules):
    pairs = modules["timing"].Pairs(ours=[1.0, 2.0, 1.0], peer=[4.0, 4.0, 9.0])
    assert pairs.ratio == 4.0
    assert pairs.seconds == (1.0, 4.0)


def test_alternate_takes_turns_and_stops_in_time(modules):
    calls = []
    pairs = modules["timing"].alternate(lambda: calls.append("ours"), lambda: calls.append("peer"), 3)
    assert calls == ["ours", "peer", "peer", "ours", "ours", "peer"]
    assert len(pairs.ours) == len(pairs.peer) == 3
    assert len(modules["timing"].alternate(lambda: None, lambda: None, 100, seconds=0.0).ours) == 1


def test_generated_paths_are_all_different_and_of_a_titles_length(modules):
    paths = modules["machine"].generated_paths(3000, vocabulary=8000)
    assert len({tuple(path) for path in paths}) == 3000
    assert 18 < np.mean([len(path) for path in paths]) < 22
    assert max(path.max() for path in paths) < 8000


def test_generated_titles_are_distinct(modules):
    catalogue = modules["setting"].generated_catalogue(300, seed=0)
    assert len(set(catalogue.titles)) == len(catalogue) == 300


OFFICE = FOLDER.parents[1] / "shared" / "data" / "office"


@pytest.fixture(scope="module")
def office(modules):
    if not OFFICE.is_dir():
        pytest.skip("Amazon Office is not here")
    size = modules["setting"].Size(hidden=32, layers=2, training=2)
    return modules["setting"].make_setting(size, OFFICE)


@pytest.mark.parametrize("scoring", ["full", "renormalised"])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_beams_on_office_titles_are_those_of_generate(modules, office, family, scoring):
    setting, peers = office, modules["peers"]
    if family == "qwen2":
        shape = {**office.policy.model.config.to_dict(), "model_type": "qwen2", "num_key_value_heads": 1}
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(Qwen2Config.from_dict(shape)).eval()
        setting = replace(office, policy=replace(office.policy, model=model))
    rows, titles = setting.test[-3:], setting.policy.titles
    items, scores = setting.engine().beam(rows, width=10, size=10, scoring=scoring)
    wanted, values = peers.generate_beams(
        setting.policy.model,
        peers.DictTrie(titles),
        setting.prompts(rows),
        width=10,
        longest=max(map(len, titles.paths)),
        renormalised=scoring == "renormalised",
    )
    np.testing.assert_allclose(scores, values, atol=1e-5, rtol=1e-5)
    modules["inference"].same_lists(items.numpy(), scores.numpy(), wanted, values, tolerance=1e-5)
