"""The token step: which logits it asks for, which tokens it learns, which tokens it calls valid."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from recalign.api import NoParams, TokenNeeds, TokenObjective
from recalign.decoding.engine import PolicyEngine
from recalign.models.policy import load_policy
from recalign.objectives.sft import Sft
from recalign.plugins.registry import create
from recalign.tasks import TASKS, Response
from recalign.tasks.list import ListTask
from recalign.training.offline.examples import IGNORED, AnswerExamples, collate
from recalign.training.offline.token_step import TokenStep
from tests.decoding.doubles import valid_mask
from tests.fake_dataset import TITLES, write_dataset
from tests.fake_models import byte_level_tokenizer, save_model
from tests.training.updates import update


class Reader(TokenObjective):
    Params = NoParams
    needs = TokenNeeds(valid_tokens=True)

    def loss(self, answers):
        return cross_entropy(answers.logits, answers.labels), {}


def build(tmp_path, objective, *, identifier="title", model="builtin:tiny", **options):
    dataset = write_dataset(tmp_path / f"data-{identifier}", identifier=identifier)
    policy = load_policy(model, dataset, trainable=True, **options)
    engine = PolicyEngine(policy, dataset.catalogue, exclude_history=True)
    examples = AnswerExamples(policy, dataset.rows("train"), 3)
    return TokenStep(policy, objective, engine), examples


def uneven(policy, dataset_rows):
    """Rows with histories of different lengths."""
    return [replace(row, history=row.history[: 1 + row.index % 4]) for row in dataset_rows]


@pytest.mark.parametrize("all_tokens", [False, True])
@pytest.mark.parametrize("family", ["builtin", "qwen2"])
def test_loss_of_a_padded_batch_is_that_of_its_rows_one_by_one(tmp_path, family, all_tokens):
    name = "builtin:tiny"
    if family == "qwen2":
        name = save_model(tmp_path / "hub", byte_level_tokenizer(TITLES), family="qwen2")
    step, examples = build(tmp_path, Sft(), model=name)
    examples.rows = uneven(step.policy, examples.rows[:5])
    chosen = [examples[0, index] for index in range(5)]
    batch = collate(chosen, pad=0, all_tokens=all_tokens)
    assert len({len(example.tokens) for example in chosen}) > 1
    total, count = 0.0, 0
    for example in chosen:
        tokens = torch.from_numpy(example.tokens.astype(np.int64))
        first = 1 if all_tokens else example.prompt
        logits = step.policy.model(input_ids=tokens[None]).logits[0, first - 1 : -1]
        total += cross_entropy(logits, tokens[first:], reduction="sum").item()
        count += len(tokens) - first
    assert update(step, batch)[0].item() == pytest.approx(total / count, rel=1e-4)


def test_what_pads_a_batch_changes_nothing(tmp_path):
    step, examples = build(tmp_path, Sft())
    examples.rows = uneven(step.policy, examples.rows[:5])
    chosen = [examples[0, index] for index in range(5)]
    first, second = (step.answers(step.policy.model, collate(chosen, pad=pad, all_tokens=True)) for pad in (0, 7))
    assert torch.equal(first.logits, second.logits) and torch.equal(first.labels, second.labels)


def test_the_head_is_run_where_there_is_a_token_to_learn_and_nowhere_else(tmp_path):
    step, examples = build(tmp_path, Sft())
    examples.rows = uneven(step.policy, examples.rows[:5])
    batch = collate([examples[0, index] for index in range(5)], pad=0, all_tokens=False)
    assert (batch.labels == IGNORED).any()  # a grid of rows and columns would have more
    seen = []
    head = step.policy.model.get_output_embeddings()
    hook = head.register_forward_hook(lambda _, __, logits: seen.append(logits.shape[:-1].numel()))
    answers = step.answers(step.policy.model, batch)
    assert seen == [len(answers.labels)] == [sum(len(example.titles) for example in batch.examples)]
    hook.remove()
    assert not head._forward_pre_hooks


def test_answers_are_learnt_or_every_token_but_the_first(tmp_path):
    _, examples = build(tmp_path, Sft(), identifier="atomic")
    batch = collate([examples[0, 0], examples[0, 1]], pad=0, all_tokens=False)
    # <bos> and five items, then three items and the end: the prompt's last token predicts the first of them.
    assert batch.input_ids.shape == (2, 10)
    assert (batch.labels != IGNORED).tolist() == [[False] * 6 + [True] * 4] * 2
    dense = collate([examples[0, 0], examples[0, 1]], pad=0, all_tokens=True)
    assert (dense.labels != IGNORED).tolist() == [[False] + [True] * 9] * 2
    assert torch.equal(dense.labels[:, 1:], dense.input_ids[:, 1:])


@pytest.mark.parametrize("identifier", ["title", "atomic"])
def test_valid_tokens_are_those_of_the_constraint_at_every_choice(tmp_path, identifier):
    step, examples = build(tmp_path, Reader(), identifier=identifier)
    chosen = [examples[0, index] for index in (0, 3)]
    answers = step.answers(step.policy.model, collate(chosen, pad=0, all_tokens=False))
    valid = {}
    for place, position in enumerate(answers.valid_tokens.positions.tolist()):
        span = slice(int(answers.valid_tokens.starts[place]), int(answers.valid_tokens.starts[place + 1]))
        valid[position] = set(answers.valid_tokens.tokens[span].tolist())
    offset = 0
    for example in chosen:  # step through the state machine token by token
        response = example.tokens[example.prompt :]
        constraint = step.engine.constraint(3)
        state = constraint.start([example.row.history])
        for place, token in enumerate(response):
            expected = set(torch.nonzero(valid_mask(constraint, state)[0]).flatten().tolist())
            assert answers.labels[offset + place] == token
            assert int(token) in expected
            assert valid.get(offset + place, expected if len(expected) == 1 else None) == expected
            state = constraint.advance(state, torch.tensor([int(token)]))
        offset += len(response)
    assert offset == len(answers.labels)
    assert answers.rows.tolist() == sorted(answers.rows.tolist())


def test_a_model_that_gives_all_logits_only_is_served_too(tmp_path, monkeypatch):
    step, examples = build(tmp_path, Sft())
    batch = collate([examples[0, index] for index in range(3)], pad=0, all_tokens=False)
    expected = update(step, batch)[0]
    model = step.policy.model
    forward = type(model).forward

    def without_choice(self, input_ids=None, use_cache=None):
        return forward(self, input_ids, use_cache=use_cache)

    monkeypatch.setattr(type(model), "forward", without_choice)
    monkeypatch.setattr(type(model), "get_output_embeddings", lambda _: None)
    engine = PolicyEngine(step.policy, step.engine.catalogue, exclude_history=True)
    assert engine.obstacle
    again = TokenStep(step.policy, Sft(), engine)
    assert torch.allclose(update(again, batch)[0], expected, atol=1e-6)


def test_examples_beyond_the_cache_are_encoded_again_alike(tmp_path):
    step, examples = build(tmp_path, Sft())
    small = AnswerExamples(step.policy, examples.rows, 3, cache_tokens=40)
    for index in range(6):
        assert np.array_equal(small[0, index].tokens, examples[0, index].tokens)
        assert np.array_equal(small[1, index].tokens, examples[0, index].tokens)
    assert len(small._cache) < 6


@pytest.mark.parametrize("name", ["msl", "bear", "beam-exact", "igd"])
def test_a_target_that_the_history_has_is_a_valid_title_all_the_same(tmp_path, name):
    dataset = write_dataset(tmp_path / "data", task="next")
    policy = load_policy("builtin:tiny,hidden=16,heads=2", dataset)
    rows = [replace(row, targets=row.history[2:3]) for row in dataset.rows("train")[:3]]
    step = TokenStep(policy, create("objective", name), PolicyEngine(policy, dataset.catalogue, exclude_history=True))
    examples = AnswerExamples(policy, rows, 1)
    answers = step.answers(policy.model, collate([examples[0, index] for index in range(3)], pad=0, all_tokens=False))
    starts = answers.valid_tokens.starts
    for place, position in enumerate(answers.valid_tokens.positions):
        assert answers.labels[position] in answers.valid_tokens.tokens[starts[place] : starts[place + 1]]
    assert len(answers.valid_tokens.positions) >= 3  # at least the first token of each
    assert step.objective.loss(answers)[0].isfinite()


class Reasoned(ListTask):
    """A toy task: a sentence before the titles."""

    name = "reasoned"

    def response(self, row, list_length):
        return Response(row.targets[:list_length], text=f"Because of {len(row.history)} items <end>: ")


def test_free_text_stands_before_titles_and_only_titles_follow_the_trie(tmp_path, monkeypatch):
    folder = save_model(tmp_path / "hub", byte_level_tokenizer(TITLES), family="qwen2")
    step, examples = build(tmp_path, Reader(), model=folder)
    plain = [examples[0, index] for index in range(4)]
    monkeypatch.setitem(TASKS, "list", Reasoned())
    reasoned = AnswerExamples(step.policy, examples.rows, 3)
    told = [reasoned[0, index] for index in range(4)]
    for bare, example in zip(plain, told, strict=True):
        words = example.tokens[example.prompt : example.prompt + example.text]
        said = f"Because of {len(example.row.history)} items <end>: "
        assert step.policy.tokenizer.decode(words) == said
        assert step.policy.titles.end not in words  # what spells the end token is text
        assert np.array_equal(example.titles, bare.titles)
    without, batch = (collate(part, pad=0, all_tokens=False) for part in (plain, told))
    found = step.answers(step.policy.model, batch)
    assert len(found.labels) == sum(len(example.tokens) - example.prompt for example in told)
    alone = step.answers(step.policy.model, without)
    choices = sorted(found.valid_tokens.positions.tolist())
    assert found.labels[choices].tolist() == alone.labels[sorted(alone.valid_tokens.positions.tolist())].tolist()
    order, plainly = (torch.argsort(each.valid_tokens.positions) for each in (found, alone))
    assert found.valid_tokens.counts[order].tolist() == alone.valid_tokens.counts[plainly].tolist()
