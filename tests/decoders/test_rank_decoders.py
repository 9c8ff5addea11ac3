"""Decoders of the rank task: judge, head and list, on one model and the same candidates."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recalign.api import RANKING_HEAD, AnswerFormat, ranking_head
from recalign.decoding.batches import decode_rows
from recalign.decoding.engine import PolicyEngine
from recalign.errors import UserError
from recalign.models.policy import load_policy
from recalign.plugins import registry
from recalign.variations import parse_variations, vary_rows
from tests.fake_dataset import TITLES, write_dataset
from tests.fake_models import byte_level_tokenizer, save_model

NAMES = ("judge", "head", "list")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("d") / "rank", task="rank", list_length=5)


@pytest.fixture(scope="module")
def engine(tmp_path_factory, dataset):
    model = save_model(tmp_path_factory.mktemp("m") / "m", byte_level_tokenizer(TITLES), context=2048)
    policy = load_policy(model, dataset, template="alpaca")
    head = policy.attach({RANKING_HEAD: ranking_head}, seed=1)[RANKING_HEAD]
    torch.nn.init.normal_(head[2].weight, generator=torch.Generator().manual_seed(0))
    return PolicyEngine(policy, dataset.catalogue, exclude_history=False)


def decoded(engine, name, rows, size=5, **params):
    return decode_rows(engine, registry.create("decoder", name, params), rows, size)


@pytest.mark.parametrize("name", NAMES)
def test_every_list_is_an_order_of_the_candidates(engine, dataset, name):
    rows = dataset.rows("test")[:]
    found = decoded(engine, name, rows)
    assert [sorted(items) for items in found.items.tolist()] == [sorted(row.candidates.tolist()) for row in rows]
    assert (np.diff(found.scores) <= 0).all() and found.lengths.tolist() == [5] * len(rows)
    short = decoded(engine, name, rows, size=2)
    assert short.items[:, :2].tolist() == found.items[:, :2].tolist() and (short.lengths == 2).all()


@pytest.mark.parametrize("name", ["judge", "head"])
def test_the_place_of_the_positive_in_the_stored_order_never_matters(engine, dataset, name):
    """The position test of a list prompt, on independent scores: the same rank, first, in the middle or last."""
    row = dataset.rows("test")[1]
    others = row.candidates[row.candidates != row.targets[0]]
    rows = [replace(row, candidates=np.insert(others, place, row.targets[0])) for place in (0, 2, 4)]
    lists = decoded(engine, name, rows).items.tolist()
    assert lists[0] == lists[1] == lists[2]


def test_a_varied_place_changes_the_list_prompt_and_no_independent_score(engine, dataset):
    """What `decode --vary place` does."""
    rows = dataset.rows("test")[:]
    places = vary_rows(parse_variations(["place=1,3,5"]), rows, None, 0)
    assert [each.rows[0].candidates.tolist().index(rows[0].targets[0]) for each in places] == [0, 2, 4]
    prompts = [engine.policy.prompter.encode(each.rows[0]).tolist() for each in places]
    assert prompts[0] != prompts[1] != prompts[2]
    for name in ("judge", "head"):
        scores = [decoded(engine, name, each.rows).scores.tolist() for each in places]
        assert scores[0] == scores[1] == scores[2]


def test_the_judge_sorts_by_the_difference_of_two_logits(engine, dataset):
    rows = dataset.rows("test")[:2]
    found = decoded(engine, "judge", rows, positive="Yes", negative="No")
    form = AnswerFormat(("Yes", "No"), opening="", closing="", rationale=False)
    logits = engine.questions.word_logits(rows, found.items, form=form).double().numpy()
    np.testing.assert_allclose(found.scores.ravel(), logits[:, 0] - logits[:, 1], atol=1e-5)
    assert (np.diff(found.scores) < 0).all()
    with pytest.raises(UserError, match="only one is given"):
        decoded(engine, "judge", rows, positive="Yes")
    with pytest.raises(UserError, match="cannot be told apart"):
        decoded(engine, "judge", rows, positive="Yes", negative="Yes")


def test_the_head_keeps_the_rationale_of_each_position(engine, dataset):
    rows = dataset.rows("test")[:2]
    found = decoded(engine, "head", rows, rationale=True, max_tokens=6)
    assert found.rationales.shape == (2, 5)
    assert all("<answer>" in text for text in found.rationales.flat)
    assert decoded(engine, "head", rows, rationale=False).rationales is None
    sampled = [decoded(engine, "head", rows, rationale=True, max_tokens=6, temperature=1.0) for _ in range(2)]
    assert sampled[0].rationales.tolist() == sampled[1].rationales.tolist() != found.rationales.tolist()


def test_a_model_without_a_ranking_head_is_told(tmp_path, dataset):
    model = save_model(tmp_path / "m", byte_level_tokenizer(TITLES), context=2048)
    bare = PolicyEngine(load_policy(model, dataset, template="alpaca"), dataset.catalogue, exclude_history=False)
    with pytest.raises(UserError, match="no trained ranking head"):
        decoded(bare, "head", dataset.rows("test")[:1])


def test_a_written_order_is_greedy_over_the_titles_that_are_left(engine, dataset):
    rows = dataset.rows("test")[:3]
    greedy = engine.greedy(rows, list_length=5).items.numpy()
    assert decoded(engine, "list", rows).items.tolist() == greedy.tolist()
    assert decoded(engine, "list", rows).scores.tolist() == [[5.0, 4.0, 3.0, 2.0, 1.0]] * 3


def test_candidates_that_free_text_does_not_name_follow_in_a_drawn_order(engine, dataset):
    """This model writes no titles: every order is a draw of the row's own, the same each time."""
    rows = dataset.rows("test")[:6]
    found = decoded(engine, "list", rows, constrained=False)
    assert (found.scores == 0).all()
    assert found.items.tolist() == decoded(engine, "list", rows, constrained=False).items.tolist()
    assert len({tuple(row.candidates.tolist().index(item) for item in items)
                for row, items in zip(rows, found.items.tolist(), strict=True)}) > 1  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_rows_without_candidates_are_refused(engine, dataset, name):
    with pytest.raises(UserError, match="has no candidates to rank"):
        decoded(engine, name, [replace(dataset.rows("test")[0], candidates=None)])
