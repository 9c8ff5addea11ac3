"""Gradient checkpointing: the same gradients, in every pass that trains."""

import threading

import numpy as np
import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM

from recalign.decoding.packed_rows import pack_rows
from recalign.decoding.shared_attention import shared
from recalign.errors import UserError
from recalign.models.checkpointing import checkpoint_gradients
from recalign.models.lora import LoraOptions
from recalign.models.policy import load_policy
from recalign.training.logprobs.completions import completion_logps
from tests.decoding.architectures import Architecture
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


@pytest.mark.parametrize("mode", [True, False])
def test_layers_that_drop_by_themselves_do_so_in_training_alone(mode):
    found = []
    for checkpointed in (False, True):
        model = Architecture("OPT", "opt", {"dropout": 0.3, "word_embed_proj_dim": 32, "ffn_dim": 48}).model()
        model.train(mode)
        if checkpointed:
            checkpoint_gradients(model)
        torch.manual_seed(1)
        tokens = torch.arange(24).view(2, 12)
        loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        found.append((loss.detach(), gradients(model)))
        assert all(module.training is mode for module in model.modules())
    torch.testing.assert_close(found[1][0], found[0][0])
    for name, grad in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], grad, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("elsewhere", [True, False])
@pytest.mark.parametrize("kind", ["llama", "stablelm"])
def test_of_several_passes_each_layer_is_computed_again_with_its_own(kind, elsewhere):
    """A backward pass after two shared ones, in this thread or in another, as autograd's on a GPU is."""
    found = []
    for checkpointed in (False, True):
        model = Architecture(kind, kind).model()
        if checkpointed:
            checkpoint_gradients(model)
        losses = []
        for rows in ([[3, 4, 5, 6], [3, 4, 7]], [[8, 9], [8, 3, 4, 5, 6, 7], [8, 4]]):
            packed = pack_rows([np.array(row) for row in rows], torch.device("cpu"))
            with shared(model):
                given = {"input_ids": packed.tokens[None], "position_ids": packed.positions[None]}
                logits = model(**given, shared_pass=packed.reading, use_cache=False).logits
            losses.append(logits.log_softmax(-1)[..., 0].sum())
        thread = threading.Thread(target=sum(losses).backward)
        if elsewhere:
            thread.start()
            thread.join()
        else:
            thread.run()
        found.append(gradients(model))
    assert found[0].keys() == found[1].keys() and found[0]
    for name, grad in found[0].items():
        torch.testing.assert_close(found[1][name], grad, atol=1e-5, rtol=1e-5)


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
