from types import SimpleNamespace

import numpy as np
import pytest

from recalign.errors import UserError
from recalign.text.trie import TitleTrie
from tests.decoding.doubles import random_paths
from tests.work import lines_run


def build(paths):
    return TitleTrie.build(SimpleNamespace(paths=[np.array(path) for path in paths]))


def test_a_hand_drawn_tree_has_the_expected_tables():
    # root -5-> A(item 2) -6-> B(item 0); root -7-> C -8-> D(item 1)
    trie = build([[5, 6], [7, 8], [5]])
    assert trie.nodes == 5
    assert trie.child_start.tolist() == [0, 2, 3, 4, 4, 4]
    assert trie.child_token.tolist() == [5, 7, 6, 8]
    assert trie.item_at.tolist() == [-1, 2, -1, 0, 1]
    assert list(zip(trie.lo.tolist(), trie.hi.tolist(), strict=True)) == [(0, 3), (0, 2), (2, 3), (1, 2), (2, 3)]
    assert trie.item_of_rank.tolist() == [2, 0, 1]
    assert trie.decision.tolist() == [0, 1, 4, 3, 4]
    assert trie.depth.tolist() == [0, 1, 1, 2, 2]


@pytest.mark.parametrize("seed", range(3))
def test_every_title_is_a_path_and_every_node_covers_the_titles_below_it(seed):
    paths = random_paths(60, seed)
    trie = build(paths)
    for item, path in enumerate(paths):
        node = 0
        for token in path:
            edges = slice(int(trie.child_start[node]), int(trie.child_start[node + 1]))
            tokens = trie.child_token[edges].tolist()
            assert tokens == sorted(set(tokens))
            node = 1 + edges.start + tokens.index(token)  # edge e leads to node e + 1
            assert trie.lo[node] <= trie.rank_of_item[item] < trie.hi[node]
        assert trie.item_at[node] == item
        assert trie.path_node[trie.path_start[item] : trie.path_start[item + 1]][-1] == node
    prefixes = {tuple(path[:length]) for path in paths for length in range(len(path) + 1)}
    assert trie.nodes == len(prefixes)
    for node in range(trie.nodes):
        below = [item for item in range(60) if trie.lo[node] <= trie.rank_of_item[item] < trie.hi[node]]
        assert len(below) == trie.hi[node] - trie.lo[node] >= 1
    assert sorted(trie.item_of_rank.tolist()) == list(range(60))


def test_leaf_ranks_follow_the_lexicographic_order_of_titles():
    paths = random_paths(60, 5)
    trie = build(paths)
    ordered = [tuple(paths[item]) for item in trie.item_of_rank.tolist()]
    assert ordered == sorted(ordered)


def test_decisions_are_the_ends_of_chains():
    trie = build([[4, 4, 4, 5], [4, 4, 4, 6, 7], [9, 9, 9]])
    for node in range(trie.nodes):
        end = node
        while trie.child_start[end + 1] - trie.child_start[end] == 1 and trie.item_at[end] < 0:
            end = int(trie.child_start[end]) + 1
        assert trie.decision[node] == end


@pytest.mark.parametrize(
    ("paths", "message"),
    [([[3, 4], [5], [3, 4]], "Items 0 and 2 have the same"), ([[3], []], "item 1 has no tokens"), ([], "no titles")],
)
def test_bad_titles_are_refused(paths, message):
    with pytest.raises(UserError, match=message):
        build(paths)


def many_paths(count):
    """Titles of 18 tokens, frequent ones among them, as words are."""
    words = np.minimum(np.random.default_rng(0).zipf(1.3, (count, 18)), 32_000)
    words[:, -2:] = np.stack(np.divmod(np.arange(count), 1000), axis=1)
    return SimpleNamespace(paths=list(words))


def test_a_tree_is_built_level_by_level_not_title_by_title():
    few, many = many_paths(500), many_paths(20_000)
    assert lines_run(lambda: TitleTrie.build(many)) < 2 * lines_run(lambda: TitleTrie.build(few))


@pytest.mark.slow
def test_a_million_titles_take_less_than_a_gigabyte():
    assert TitleTrie.build(many_paths(1_000_000)).bytes < 1e9
