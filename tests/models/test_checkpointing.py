"""Gradient checkpointing: the same gradients, in every pass that trains."""

import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM

from recalign.errors import UserError
from recalign.models.checkpointing import checkpoint_gradients
from recalign.models.lora import LoraOptions
from recalign.models.policy import load_policy
from recalign.training.logprobs.completions import completion_logps
from tests.fake_dataset import TITLES, write_dataset
from tests.fake_models import byte_level_tokenizer, save_model
from tests.training.logprobs.test_completions import build, sampled_lists


def gradients(model):
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


def counted(model):
    """How often each decoder layer is computed."""
    calls = []
    for layer in model.get_decoder().layers:
        layer.self_attn.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("tree_mask", [True, False])
@pytest.mark.parametrize("mode", [True, False])
def test_shared_and_separate_prompts_have_the_same_gradients(tree_mask, mode, monkeypatch):
    found = []
    for checkpointed in (False, True):
        model = build("llama").train(mode)
        if checkpointed:
            checkpoint_gradients(model)
        calls = counted(model)
        sampled, *_ = sampled_lists(list_length=3)
        if tree_mask:  # the pass that puts an attention of its own in the model's place
            monkeypatch.setattr("recalign.decoding.shared_prompt.CLEARLY", 0.0)
        logps = completion_logps(model, sampled, tree_mask=tree_mask)
        forward = len(calls)
        logps.square().sum().backward()
        found.append((logps.detach(), gradients(model), len(calls) - forward))
        assert model.training is mode and all(layer.training is mode for layer in model.modules())
    (plain, expected, none), (logps, grads, again) = found
    assert (none, again) == (0, 2)  # both layers, once more
    torch.testing.assert_close(logps, plain)
    assert grads.keys() == expected.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(grad, expected[name], atol=1e-6, rtol=1e-5)


def test_an_adapters_gradients_are_the_same(tmp_path):
    dataset = write_dataset(tmp_path / "data")
    save_model(tmp_path / "hub", byte_level_tokenizer(TITLES))
    found = []
    for checkpointed in (False, True):
        model = load_policy(tmp_path / "hub", dataset, lora=LoraOptions(rank=2), trainable=True).model
        if checkpointed:
            checkpoint_gradients(model)
        tokens = torch.arange(12)[None]
        model(input_ids=tokens, labels=tokens).loss.backward()
        found.append(gradients(model))
    assert found[0].keys() == found[1].keys() and found[0]
    for name, grad in found[0].items():
        torch.testing.assert_close(found[1][name], grad)


def test_nothing_is_computed_again_without_gradients():
    model = build("llama").eval()
    checkpoint_gradients(model)
    calls = counted(model)
    with torch.no_grad():
        out = model(input_ids=torch.arange(6)[None], use_cache=True)
    assert len(calls) == 2 and out.past_key_values is not None


def test_a_model_that_cannot_is_refused():
    model = BloomForCausalLM(BloomConfig(vocab_size=30, hidden_size=16, n_layer=1, n_head=2))
    model.supports_gradient_checkpointing = False
    with pytest.raises(UserError, match="--gradient-checkpointing: BloomForCausalLM") as caught:
        checkpoint_gradients(model)
    assert "--token-budget" in caught.value.hint
