"""The token budget bounds what a pass holds and changes no gradient, for any numbers of prompts and completions."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from recalign.decoding.engine import PolicyEngine
from recalign.decoding.hidden_states import hidden_before, takes_tree_mask
from recalign.decoding.microbatches import microbatches
from recalign.decoding.prompt_cache import SharedPromptCache
from recalign.metrics.expression import parse_expression
from recalign.models.policy import load_policy, reference_policy
from recalign.plugins.registry import create
from recalign.runs.cost import MemoryWatch, peak_memory_mb
from recalign.training.logprobs.completions import Sampled, completion_logps
from recalign.training.online.prompt_order import PromptOrder
from recalign.training.online.rollout_step import RolloutStep
from tests.decoding.doubles import make_engine, random_paths, row, tiny_model
from tests.decoding.test_uncached import UNSHARED
from tests.fake_dataset import TITLES, write_dataset
from tests.fake_models import byte_level_tokenizer, save_model
from tests.training.logprobs.test_completions import VOCABULARY, gradients, plain_logps, sampled_lists
from tests.training.updates import update


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("world") / "data")


def one_step(dataset, budget, *, name="builtin:tiny,hidden=32", group_size=5, prompts=3, packed=True):
    """Gradients of a first step (by weight), its figures, and the tokens of every pass with gradients."""
    policy = load_policy(name, dataset, trainable=True)
    engine = PolicyEngine(policy, dataset.catalogue, exclude_history=True)
    step = RolloutStep(
        policy,
        engine,
        create("objective", "grpo", {"group_size": group_size, "kl_beta": 0.01}),
        parse_expression("ndcg").bind(dataset.catalogue),
        dataset.rows("train"),
        PromptOrder(np.arange(prompts), prompts, seed=0),
        None,
        reference_policy(policy),
        token_budget=budget,
    )
    step.tree_mask = step.tree_mask and packed
    held = []

    def count(_, inputs, __):
        if torch.is_grad_enabled():
            held.append(inputs[0].numel())

    handle = policy.model.get_input_embeddings().register_forward_hook(count)
    _, figures = update(step, [0])
    handle.remove()
    grads = {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}
    return grads, figures, held


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("group_size", "prompts"), [(5, 3), (7, 1), (2, 5)])
def test_a_smaller_budget_gives_the_same_gradients_in_smaller_passes(dataset, group_size, prompts, packed):
    options = {"group_size": group_size, "prompts": prompts, "packed": packed}
    whole, figures, held = one_step(dataset, 100_000, **options)
    parts, fewer, pieces = one_step(dataset, 45, **options)
    assert len(held) == 1
    assert len(pieces) > 2
    assert max(pieces) <= fewer["pass_tokens"] <= 45 < figures["pass_tokens"]
    assert max(held) <= figures["pass_tokens"]
    assert whole.keys() == parts.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, atol=1e-5, rtol=0, msg=name)


@pytest.mark.parametrize("whole", [True, False])
def test_plain_rows_count_their_copies_of_the_prompt(whole):
    prompts = [np.zeros(length, dtype=np.int64) for length in (50, 10, 31)]
    groups = np.repeat(np.arange(3), [5, 4, 3])
    lengths = np.arange(12) % 5 + 1
    parts = microbatches(prompts, lengths, groups, budget=120, whole=whole, tree_mask=False)
    assert sorted(np.concatenate([part.rows for part in parts]).tolist()) == list(range(12))
    for rows, tokens in parts:
        widths = [len(prompts[groups[row]]) + lengths[row] for row in rows]
        assert max(widths) * len(rows) == tokens
        assert tokens <= 120 or (whole and len(set(groups[rows])) == 1)
        assert (np.diff(rows) > 0).all()
    if whole:
        assert all({*np.flatnonzero(groups == g)} <= {*rows} for rows, _ in parts for g in set(groups[rows]))


@pytest.mark.parametrize("budget", [600, 2000])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("beam", {"width": 5, "size": 5}),
        ("beam", {"width": 5, "size": 5, "scoring": "full"}),
        ("exact", {"size": 5}),
        ("exact", {"size": 5, "scoring": "full"}),
        ("sample", {"group_size": 6, "list_length": 1}),
        ("sample", {"group_size": 4, "list_length": 3}),
    ],
)
def test_decoding_holds_the_token_budget(method, options, budget, monkeypatch):
    held, extend = [], SharedPromptCache.extend

    def watched(self, *arguments, **keywords):
        found = extend(self, *arguments, **keywords)
        own = 0 if self.branching else self.own.rows * self.own.room
        held.append(self.prompts.rows * self.prompts.room + own)
        return found

    monkeypatch.setattr(SharedPromptCache, "extend", watched)
    engine = make_engine(random_paths(60, longest=9), token_budget=budget, task="next")
    rows = [row(i, np.random.default_rng(i).integers(0, 60, size=5 + i % 9).tolist()) for i in range(40)]
    held.clear()
    getattr(engine, method)(rows, **options)
    assert max(held) <= budget


def test_exact_search_forgets_what_it_has_closed(monkeypatch):
    slots, extend = [], SharedPromptCache.extend

    def watched(self, *arguments, **keywords):
        found = extend(self, *arguments, **keywords)
        slots.append(int(self.taken.sum(dim=1).max()))
        return found

    monkeypatch.setattr(SharedPromptCache, "extend", watched)
    engine = make_engine(random_paths(400, longest=6, width=20), task="next")
    slots.clear()
    opened = engine.exact([row(0, [1])], size=3, scoring="full")[2]
    assert max(slots) < int(opened) / 2  # of more tokens that were read than nodes that were opened


def test_what_a_step_takes_is_watched():
    watch = MemoryWatch(torch.device("cpu"))
    before = peak_memory_mb(torch.device("cpu"))
    held = np.ones(2**24)  # 128 MB
    assert watch.peak_mb() >= 120
    assert peak_memory_mb(torch.device("cpu")) >= before
    assert held[-1] == 1.0


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell a process's own peak")
def test_the_peak_is_of_this_process_and_not_of_the_one_that_started_it():
    held = np.ones(2**25)  # 256 MB
    told = """
from types import SimpleNamespace
from recalign.runs.cost import peak_memory_mb
print(peak_memory_mb(SimpleNamespace(type="cpu")))
"""
    process = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert 5 < float(process.stdout) < 250 and held[-1] == 1.0


@pytest.mark.parametrize(("kind", "options"), UNSHARED)
def test_models_that_share_no_prompts_are_trained_on_what_they_would_say(kind, options, said):
    model = tiny_model(kind, vocabulary=VOCABULARY, **options)
    sampled, constraint, bars = sampled_lists(temperature=0.8, list_length=4)
    assert sampled.layout.reach > 15
    expected = plain_logps(model, sampled, constraint, bars)
    actual = completion_logps(model, sampled, tree_mask=takes_tree_mask(model))
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    assert len(said) == 1
    wanted, got = gradients(model, expected), gradients(model, actual)
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_a_window_wider_than_the_sequences_is_none(said):
    model = tiny_model("mistral", vocabulary=VOCABULARY, sliding_window=64)
    sampled, constraint, bars = sampled_lists()
    torch.testing.assert_close(
        completion_logps(model, sampled), plain_logps(model, sampled, constraint, bars), atol=1e-5, rtol=1e-5
    )
    assert said == []


def test_the_reach_is_the_longest_prompt_with_its_own_completion():
    sampled = Sampled([np.zeros(9), np.zeros(2)], np.zeros((3, 8)), np.array([3, 1, 8]), np.array([0, 0, 1]), None)
    assert sampled.layout.reach == 12


def test_a_step_of_a_model_with_a_window_says_so_once_and_holds_the_budget(dataset, tmp_path, said):
    name = save_model(tmp_path / "hub", byte_level_tokenizer(TITLES), family="mistral", sliding_window=16)
    whole, figures, held = one_step(dataset, 100_000, name=name)
    parts, fewer, pieces = one_step(dataset, 900, name=name)
    assert len(held) == 1 and max(held) == figures["pass_tokens"]
    assert len(pieces) > 2 and max(pieces) <= fewer["pass_tokens"] <= 900
    for key, gradient in whole.items():
        torch.testing.assert_close(parts[key], gradient, atol=1e-5, rtol=0, msg=key)
    assert len(said) == 1
    assert "looks back 16 tokens only" in said[0]


def test_hidden_states_of_a_packed_call_beyond_the_window_are_those_of_plain_rows():
    model = tiny_model("mistral", vocabulary=VOCABULARY, sliding_window=8)
    sampled, _, _ = sampled_lists()
    rows, positions = sampled.decisions.rows.numpy(), sampled.decisions.positions.numpy()
    one, two = (hidden_before(model, sampled.layout, rows, positions, tree_mask=packed) for packed in (True, False))
    torch.testing.assert_close(one[0][one[1]], two[0][two[1]])


def test_prompts_too_few_for_all_processes_join_the_rollout_before():
    prompts = PromptOrder(np.arange(9), per_step=4, seed=1, processes=3)
    assert [len(prompts.at(step)) for step in range(4)] == [4, 5, 4, 5]
    assert sorted([*prompts.at(0), *prompts.at(1)]) == list(range(9))
    assert prompts.asked(1).tolist() == sorted(prompts.at(0))
    assert [len(PromptOrder(np.arange(11), 4, 1, 3).at(step)) for step in range(3)] == [4, 4, 3]
    assert len(PromptOrder(np.arange(3), 4, 1, 3).at(5)) == 3
