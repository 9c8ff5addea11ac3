"""Rows in one sequence, their common beginning once: the same loss and gradients as padded rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recalign.decoding import prompt_cache, shared_attention
from recalign.decoding.engine import PolicyEngine
from recalign.decoding.packed_rows import gains_by_packing, pack_rows
from recalign.models.lora import LoraOptions
from recalign.models.policy import load_policy
from recalign.plugins.registry import create
from recalign.training.offline.examples import AnswerExamples, collate
from recalign.training.offline.token_step import TokenStep
from tests.decoding.architectures import Architecture
from tests.fake_dataset import TITLES, write_dataset
from tests.fake_models import byte_level_tokenizer, save_model
from tests.training.updates import gradients, update


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    models = {
        kind: save_model(folder / kind, byte_level_tokenizer(TITLES), family=kind, context=2048)
        for kind in ("llama", "qwen2", "mistral")
    }
    return write_dataset(folder / "data", task="next"), models


def step_of(world, kind, objective="sft", *, count=5, **options):
    dataset, models = world
    policy = load_policy(models[kind], dataset, trainable=True, template="alpaca", **options)
    rows = [replace(row, history=row.history[: 1 + row.index % 4]) for row in dataset.rows("train")[:count]]
    engine = PolicyEngine(policy, dataset.catalogue, exclude_history=True)
    return TokenStep(policy, create("objective", objective), engine), AnswerExamples(policy, rows, 1)


def both(step, batch, monkeypatch):
    """Loss, gradients and tokens that were run, packed and padded."""
    found = []
    for packed in (True, False):
        with monkeypatch.context() as patch:
            patch.setattr(shared_attention, "ROW_BY_ROW", {"cpu"} if packed else set())
            seen = []
            hook = step.policy.model.get_input_embeddings().register_forward_pre_hook(
                lambda _, given, seen=seen: seen.append(given[0].numel())
            )
            loss, _ = update(step, batch)
            hook.remove()
            found.append((loss, gradients(step.policy.model), sum(seen)))
    return found


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral"])
@pytest.mark.parametrize("objective", ["sft", "msl", "bear", "cft", "igd"])
def test_loss_and_gradients_are_those_of_padded_rows(world, kind, objective, monkeypatch):
    monkeypatch.setattr(prompt_cache, "WORTH_A_PASS", 2)
    step, examples = step_of(world, kind, objective)
    batch = collate([examples[0, index] for index in range(5)], pad=0, all_tokens=False)
    packed, padded = both(step, batch, monkeypatch)
    torch.testing.assert_close(packed[0], padded[0], atol=1e-6, rtol=1e-5)
    assert packed[1].keys() == padded[1].keys()
    for name, gradient in padded[1].items():
        torch.testing.assert_close(packed[1][name], gradient, atol=2e-6, rtol=1e-4)
    assert packed[2] < 0.8 * padded[2]


@pytest.mark.parametrize("all_tokens", [False, True])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_prompts_may_be_learnt_too_and_adapters(world, all_tokens, count, monkeypatch):
    step, examples = step_of(world, "llama", lora=LoraOptions(rank=4))
    batch = collate([examples[0, index] for index in range(count)], pad=0, all_tokens=all_tokens)
    with torch.no_grad():
        for name, weight in step.policy.model.named_parameters():
            if "lora_B" in name:
                weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)), alpha=0.1)
    packed, padded = both(step, batch, monkeypatch)
    torch.testing.assert_close(packed[0], padded[0], atol=1e-6, rtol=1e-5)
    for name, gradient in padded[1].items():
        torch.testing.assert_close(packed[1][name], gradient, atol=1e-5, rtol=1e-3)


def test_the_common_beginning_is_laid_out_once():
    head = np.arange(20)
    packed = pack_rows([np.append(head, [90]), np.append(head, [91, 92, 93])], torch.device("cpu"))
    assert packed.tokens.tolist() == [*range(20), 90, 91, 92, 93]
    assert packed.positions.tolist() == [*range(20), 20, 20, 21, 22]
    rows, columns = torch.tensor([0, 0, 1, 1]), torch.tensor([3, 20, 3, 22])
    assert packed.places(rows, columns).tolist() == [3, 20, 3, 23]
    apart = pack_rows([np.array([1, 2]), np.array([3])], torch.device("cpu"))
    assert (apart.common, apart.tokens.tolist(), apart.positions.tolist()) == (0, [1, 2, 3], [0, 1, 0])
    assert apart.places(torch.tensor([0, 1]), torch.tensor([1, 0])).tolist() == [1, 2]


def test_models_that_drop_something_are_not_packed_while_they_train(world, monkeypatch):
    dropping = step_of(world, "llama", lora=LoraOptions(rank=4, dropout=0.1))[0].policy.model
    plain = step_of(world, "llama", lora=LoraOptions(rank=4))[0].policy.model
    assert gains_by_packing(plain) and not gains_by_packing(dropping) and gains_by_packing(dropping.eval())
    attention = plain.get_base_model().model.layers[0].self_attn
    attention.attention_dropout = 0.1
    assert not gains_by_packing(plain) and gains_by_packing(plain.eval())
    attention.attention_dropout = 0.0
    assert gains_by_packing(plain.train())
    monkeypatch.setattr(shared_attention, "ROW_BY_ROW", set())
    assert not gains_by_packing(plain)


RANDOM = {
    "opt": ("opt", {"dropout": 0.1}),
    "opt, attention": ("opt", {"dropout": 0.0, "attention_dropout": 0.5}),
    "opt, layers": ("opt", {"dropout": 0.0, "layerdrop": 0.5}),
    "starcoder2": ("starcoder2", {"residual_dropout": 0.1}),
    "mixtral": ("mixtral", {"router_jitter_noise": 0.3, "num_local_experts": 4}),
    "gpt_bigcode": ("gpt_bigcode", {"attn_pdrop": 0.3, "resid_pdrop": 0.0, "embd_pdrop": 0.0}),
}


@pytest.mark.parametrize("case", RANDOM)
def test_rows_are_not_packed_where_an_architecture_computes_at_random(case):
    kind, options = RANDOM[case]
    model = Architecture(case, kind, options).model()
    tokens = torch.arange(30)[None]
    assert gains_by_packing(model) and torch.equal(model(tokens).logits, model(tokens).logits)
    model.train()
    assert not torch.equal(model(tokens).logits, model(tokens).logits)
    assert not gains_by_packing(model)


def test_rows_longer_than_the_window_are_not_packed(world, monkeypatch):
    step, examples = step_of(world, "llama")
    longest = max(len(examples[0, index].tokens) for index in range(5)) - 1
    assert step._packs(longest)
    config = step.policy.model.config
    monkeypatch.setattr(config, "layer_types", ["sliding_attention"] * config.num_hidden_layers, raising=False)
    monkeypatch.setattr(config, "sliding_window", longest, raising=False)
    assert step._packs(longest) and not step._packs(longest + 1)
