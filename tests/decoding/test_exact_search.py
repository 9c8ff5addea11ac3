import numpy as np
import pytest
import torch

from recalign.decoding.prompt_cache import SharedPromptCache
from recalign.errors import UserError
from tests.decoding.doubles import make_engine, random_paths, row, tiny_model
from tests.decoding.test_beam_search import every_score, trained


@pytest.mark.parametrize("scoring", ["renormalised", "full"])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("breadth", [1, 3, None])
def test_the_top_items_are_those_of_scoring_the_whole_catalogue(scoring, kind, breadth):
    paths = random_paths(60, longest=6)
    engine = make_engine(paths, kind=kind, exclude_history=True)
    rows = [row(i, np.random.default_rng(i).integers(0, 60, size=1 + i).tolist()) for i in range(4)]
    items, scores, opened = engine.exact(rows, size=7, scoring=scoring, breadth=breadth)
    for one, found, values in zip(rows, items.tolist(), scores.tolist(), strict=True):
        wanted = every_score(engine, one, one.history.tolist(), scoring)[:7]
        assert found == [item for item, _ in wanted]
        np.testing.assert_allclose(values, [score for _, score in wanted], atol=1e-5)
    assert (opened >= 1).all() and (opened < engine.trie.nodes).all()


@pytest.mark.parametrize("scoring", ["renormalised", "full"])
def test_a_wide_beam_agrees_and_a_narrow_one_cannot_score_higher(scoring):
    paths = random_paths(120, seed=4, longest=6, width=20)
    engine = make_engine(paths, model=trained("llama", paths), exclude_history=True)
    rows = [row(i, [i, 2 * i]) for i in range(5)]
    items, scores, _ = engine.exact(rows, size=8, scoring=scoring)
    wide, wide_scores = engine.beam(rows, width=120, size=8, scoring=scoring)
    assert items.tolist() == wide.tolist()
    np.testing.assert_allclose(scores, wide_scores, atol=1e-5)
    narrow = engine.beam(rows, width=8, size=8, scoring=scoring)[1]
    assert (narrow.sort(descending=True).values <= scores + 1e-5).all()


ODD = {
    "one item": [[5, 6, 7]],
    "one item of one token": [[5]],
    "titles of one token": [[token] for token in range(3, 15)],
    "all but the last token alike": [[5, 6, 7, 8, token] for token in range(9, 20)],
    "alike up to a choice and on": [[5, 6, 7, 8, 9], [5, 6, 3, 4]],
    "each begins the next": [[5] * length for length in range(1, 9)],
}


@pytest.mark.parametrize("scoring", ["renormalised", "full"])
@pytest.mark.parametrize("name", ODD)
def test_odd_catalogues_are_scored_like_any_other(name, scoring):
    paths = [np.array(path) for path in ODD[name]]
    engine, rows = make_engine(paths, task="next"), [row(0, [0]), row(1, [0] * 9)]
    found = engine.exact(rows, size=len(paths) + 1, scoring=scoring)[:2]
    beams = engine.beam(rows, width=len(paths) + 1, size=len(paths) + 1, scoring=scoring)
    for items, scores in (found, beams):
        for one, ranked, values in zip(rows, items.tolist(), scores.tolist(), strict=True):
            wanted = every_score(engine, one, [], scoring)
            assert ranked == [*(item for item, _ in wanted), -1]
            np.testing.assert_allclose(values[:-1], [score for _, score in wanted], atol=1e-5)


def test_opening_one_prefix_at_a_time_opens_the_fewest():
    engine = make_engine(random_paths(120, seed=4, longest=6, width=20))
    rows = [row(i, [i]) for i in range(5)]
    one, many = (engine.exact(rows, size=5, breadth=breadth)[2] for breadth in (1, 20))
    assert (one <= many).all() and one.sum() < many.sum()


def test_results_do_not_depend_on_the_batch():
    paths = random_paths(60)
    rows = [row(i, np.random.default_rng(i).integers(0, 60, size=1 + i % 4).tolist()) for i in range(9)]
    together, alone = (make_engine(paths, token_budget=budget).exact(rows, size=5) for budget in (32768, 1))
    assert together[0].tolist() == alone[0].tolist()
    assert together[2].tolist() == alone[2].tolist()


def test_a_catalogue_smaller_than_the_list_gives_each_item_once():
    items, scores, _ = make_engine(random_paths(4)).exact([row(0, [1])], size=6)
    assert sorted(items[0, :4].tolist()) == [0, 1, 2, 3] and items[0, 4:].tolist() == [-1, -1]


@pytest.mark.parametrize("search", ["beam", "exact", "sample", "greedy"])
def test_a_model_whose_logits_are_no_numbers_is_refused(search):
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.embed_tokens.weight[3 + 7] = torch.nan  # the token of item 7 in a history
    engine = make_engine(random_paths(30), model=model, task="next")
    options = {
        "beam": {"width": 3, "size": 3},
        "exact": {"size": 3},
        "sample": {"group_size": 2, "list_length": 1},
        "greedy": {"list_length": 1},
    }[search]
    with pytest.raises(UserError, match=r"logits are nan after the prompt of user '1'.\n.*earlier checkpoint"):
        getattr(engine, search)([row(0, [1]), row(1, [2, 7])], **options)


@pytest.mark.parametrize(("scoring", "passes"), [("renormalised", 0), ("full", 1)])
@pytest.mark.parametrize("search", ["beam", "exact"])
def test_forced_tokens_are_no_passes(search, scoring, passes, monkeypatch):
    calls, extend = [], SharedPromptCache.extend
    monkeypatch.setattr(SharedPromptCache, "extend", lambda *a, **options: calls.append(1) or extend(*a, **options))
    paths = [np.array([first, *range(3, 14)]) for first in range(20, 29)]  # one choice, and eleven tokens after it
    engine = make_engine(paths, task="next")
    calls.clear()
    options = {"width": 4} if search == "beam" else {"breadth": 9}
    items, scores = getattr(engine, search)([row(0, [1]), row(1, [2])], size=4, scoring=scoring, **options)[:2]
    assert len(calls) == passes
    assert (items >= 0).all() and torch.isfinite(scores).all()


def test_prompts_of_like_length_are_batched_within_the_budget():
    engine = make_engine(random_paths(10), token_budget=100)
    prompts = [np.zeros(length) for length in (5, 40, 7, 90, 30, 6, 200)]
    batches = [[len(prompts[index]) for index in batch] for batch in engine.batches(prompts, 10)]
    assert batches == [[200], [90], [40, 30], [7, 6, 5]]
