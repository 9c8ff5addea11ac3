"""Shared prompts give the hidden states and gradients of prefix trees and of separate rows."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from recalign.decoding import hidden_states, shared_prompt
from recalign.decoding.hidden_states import hidden_before
from recalign.decoding.shared_prompt import (
    hidden_beside_prompts,
    sharing_is_cheaper,
    takes_shared_prompts,
    tokens_needed,
)
from recalign.models.checkpointing import checkpoint_gradients
from recalign.training.logprobs.completions import Sampled
from tests.decoding.architectures import ARCHITECTURES

SIZES = dict(
    vocab_size=30,
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    initializer_range=0.3,
)
FAMILIES = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}
NAMED = {each.name: each for each in ARCHITECTURES}
OTHERS = ["Gemma 2", "GPT-OSS", "StableLM"]  # capped scores, sinks, layers that hand nothing on


def build(family, *, lora=False):
    torch.manual_seed(0)
    if family in NAMED:
        model = NAMED[family].model()
    else:
        config, model_class = FAMILIES[family]
        model = model_class(config(**SIZES)).eval()
    if lora:
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.3)
    return model


def completions():
    """Six completions of three prompts; predicted places at the very first token, in the middle and at the end."""
    generator = np.random.default_rng(1)
    prompts = [generator.integers(30, size=length) for length in (5, 2, 9)]
    tokens = generator.integers(30, size=(6, 7))
    tokens[1, :4] = tokens[0, :4]
    rows = np.array([0, 0, 1, 1, 2, 3, 3, 4, 5])
    positions = np.array([0, 6, 0, 3, 0, 2, 5, 4, 0])
    sampled = Sampled(prompts, tokens, np.full(6, 7), np.array([0, 0, 1, 1, 2, 2]), decisions=None)
    return sampled, rows, positions


def values(model, layout):
    """Hidden states [E, H] before each predicted token, and the gradient of a fixed function of them."""
    hidden, site_of = layout()
    states = hidden[site_of]
    weight = torch.linspace(-1, 1, states.numel()).view_as(states)
    (states * weight).sum().backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad(set_to_none=True)
    return states.detach(), gradient


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("family", [*FAMILIES, *OTHERS])
def test_hidden_states_and_gradients_equal_plain_rows(family, lora):
    model = build(family, lora=lora)
    sampled, rows, positions = completions()
    layout = (sampled.prompts, sampled.tokens, sampled.groups, rows, positions)
    wanted, wanted_gradient = values(
        model, lambda: hidden_before(model, sampled.layout, rows, positions, tree_mask=False)
    )
    found, gradient = values(model, lambda: hidden_beside_prompts(model, *layout))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(gradient, wanted_gradient, atol=1e-5 * max(1.0, float(gradient.abs().max())), rtol=1e-4)


@pytest.mark.parametrize("family", OTHERS)
def test_layers_that_are_computed_again_have_the_same_pass(family):
    sampled, rows, positions = completions()
    layout = (sampled.prompts, sampled.tokens, sampled.groups, rows, positions)
    model, again = build(family), build(family)
    checkpoint_gradients(again)
    wanted, wanted_gradient = values(model, lambda: hidden_beside_prompts(model, *layout))
    found, gradient = values(again, lambda: hidden_beside_prompts(again, *layout))
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(gradient, wanted_gradient)


def test_predictions_at_first_tokens_alone_need_no_lane():
    model = build("llama")
    sampled, _, _ = completions()
    rows, positions = np.arange(6), np.zeros(6, dtype=np.int64)
    layout = (sampled.prompts, sampled.tokens, sampled.groups, rows, positions)
    wanted, _ = values(model, lambda: hidden_before(model, sampled.layout, rows, positions, tree_mask=False))
    found, _ = values(model, lambda: hidden_beside_prompts(model, *layout))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_the_attention_is_put_back():
    model = build("llama")
    before = model.config._attn_implementation
    sampled, rows, positions = completions()
    hidden_beside_prompts(model, sampled.prompts, sampled.tokens, sampled.groups, rows, positions)
    assert model.config._attn_implementation == before


def long_completions(distinct):
    """Sixteen completions of 200 tokens of one prompt, all different or all alike."""
    tokens = np.random.default_rng(0).integers(30, size=(16, 200))
    if not distinct:
        tokens[:] = tokens[0]
    rows, positions = np.arange(16), np.full(16, 199)
    return Sampled([np.arange(20)], tokens, np.full(16, 200), np.zeros(16, dtype=np.int64), None), rows, positions


@pytest.mark.parametrize("distinct", [True, False])
def test_shared_prompts_are_chosen_for_long_completions_that_differ(distinct, monkeypatch):
    model = build("llama")
    sampled, rows, positions = long_completions(distinct)
    calls = []
    real = hidden_beside_prompts
    monkeypatch.setattr(hidden_states, "hidden_beside_prompts", lambda *a: calls.append(1) or real(*a))
    found, site_of = hidden_before(model, sampled.layout, rows, positions)
    assert bool(calls) == distinct
    wanted, wanted_site = hidden_before(model, sampled.layout, rows, positions, tree_mask=False)
    torch.testing.assert_close(found[site_of], wanted[wanted_site], atol=1e-4, rtol=1e-3)


def test_a_model_that_takes_no_shared_attention_encodes_no_shared_prompts(monkeypatch):
    model = build("llama")
    monkeypatch.setattr(shared_prompt, "obstacle_to_sharing", lambda _: "its attention cannot be replaced")
    sampled, rows, positions = long_completions(True)
    needed = tokens_needed(len(sampled), rows, positions)
    assert not takes_shared_prompts(model)
    assert not sharing_is_cheaper(model, sampled.prompts, needed, sampled.groups, (1, 3220))
