"""Devices, attention and quantised weights: what is asked for is used, and what is not there is refused."""

import importlib.util

import pytest
import torch
from peft import PeftModel

from recalign.errors import UserError
from recalign.models import hardware as hardware_module
from recalign.models.hardware import Hardware
from recalign.models.lora import LoraOptions
from recalign.models.policy import load_policy
from tests.fake_dataset import TITLES, write_dataset
from tests.fake_models import byte_level_tokenizer, save_model

LORA = LoraOptions(rank=2)
BITS = ["4bit", "8bit"]
quantised = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed (pip install bitsandbytes)"
)


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path / "data")


@pytest.fixture
def downloaded(tmp_path):
    return save_model(tmp_path / "hub", byte_level_tokenizer(TITLES), hidden=64)


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(10)[None]).logits


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused(dataset):
    with pytest.raises(UserError, match="--device cuda: there is none here") as caught:
        load_policy("builtin:tiny", dataset, hardware=Hardware("cuda"))
    assert "cpu" in caught.value.hint


def test_on_a_gpu_attention_is_not_left_to_cudnn(monkeypatch):
    before = torch.backends.cuda.cudnn_sdp_enabled()
    monkeypatch.setattr(hardware_module.torch.cuda, "is_available", lambda: True)
    try:
        torch.backends.cuda.enable_cudnn_sdp(True)
        assert Hardware().place().type == "cuda"
        assert not torch.backends.cuda.cudnn_sdp_enabled() and torch.backends.cuda.mem_efficient_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def test_the_processor_may_be_asked_for(dataset):
    assert load_policy("builtin:tiny", dataset, hardware=Hardware("cpu")).device.type == "cpu"


@pytest.mark.parametrize("name", ["builtin:tiny", "downloaded"])
def test_attention_is_as_asked_and_gives_the_same_logits(dataset, downloaded, name):
    name = downloaded if name == "downloaded" else name
    usual, eager = (load_policy(name, dataset, hardware=Hardware("cpu", kind)).model for kind in (None, "eager"))
    assert (usual.config._attn_implementation, eager.config._attn_implementation) == ("sdpa", "eager")
    torch.testing.assert_close(logits(eager), logits(usual), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("flash_attention_2", "flash_attention_2 cannot be used"),
        ("sdpaa", "'sdpaa' is not known"),
        ("recalign_shared", "not known"),
    ],
)
def test_attention_that_is_not_installed_is_refused(dataset, name, said):
    if name == "flash_attention_2" and importlib.util.find_spec("flash_attn") is not None:
        pytest.skip("flash_attn is installed")
    with pytest.raises(UserError, match=said) as caught:
        load_policy("builtin:tiny", dataset, hardware=Hardware("auto", name))
    assert "sdpa" in caught.value.hint


# ---------------------------------------------------------------- quantised weights


@pytest.mark.parametrize("bits", BITS)
def test_without_the_library_the_command_that_installs_it_is_named(dataset, downloaded, monkeypatch, bits):
    monkeypatch.setattr(hardware_module.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=f"--load-in-{bits} needs the package bitsandbytes") as caught:
        load_policy(downloaded, dataset, hardware=Hardware(quantization=bits))
    assert caught.value.hint == "pip install bitsandbytes"


def test_quantised_weights_are_not_trained_themselves(dataset, downloaded):
    with pytest.raises(UserError, match="nothing to train") as caught:
        load_policy(downloaded, dataset, hardware=Hardware(quantization="4bit"), trainable=True)
    assert "--lora" in caught.value.hint
    with pytest.raises(UserError, match="random weights"):
        load_policy("builtin:tiny", dataset, hardware=Hardware(quantization="4bit"))


@quantised
@pytest.mark.parametrize("bits", BITS)
def test_an_adapter_is_trained_on_quantised_weights_and_finds_them_again(tmp_path, dataset, downloaded, bits):
    whole = logits(load_policy(downloaded, dataset).model)
    policy = load_policy(downloaded, dataset, lora=LORA, hardware=Hardware(quantization=bits), trainable=True)
    assert isinstance(policy.model, PeftModel)
    layer = policy.model.get_base_model().model.layers[0].mlp.up_proj.base_layer.weight
    assert layer.dtype == {"4bit": torch.uint8, "8bit": torch.int8}[bits]
    start = logits(policy.model)
    assert 0 < (start - whole).norm() < 0.6 * whole.norm()  # rounded, and the same model still
    tokens = torch.arange(12)[None]
    policy.model.train()(input_ids=tokens, labels=tokens).loss.backward()
    trained = {name for name, each in policy.model.named_parameters() if each.grad is not None}
    assert trained and all("lora_" in name for name in trained)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    policy.save(tmp_path / "run" / "model")
    again = load_policy(tmp_path / "run", dataset)  # nothing is said: quantised as in training
    assert again.settings["quantization"] == bits
    torch.testing.assert_close(logits(again.model), logits(policy.model), atol=1e-5, rtol=1e-4)


@quantised
@pytest.mark.parametrize("bits", BITS)
def test_a_validation_leaves_the_gradients_of_quantised_weights_as_they_were(dataset, downloaded, bits):
    found = []
    for validated in (False, True):
        policy = load_policy(downloaded, dataset, lora=LORA, hardware=Hardware(quantization=bits), trainable=True)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, parameter in policy.model.named_parameters():
                if "lora_" in name:
                    parameter.normal_(std=0.1, generator=generator)
        if validated:
            logits(policy.model)
        tokens = torch.arange(12)[None]
        policy.model.train()(input_ids=tokens, labels=tokens).loss.backward()
        found.append({name: each.grad for name, each in policy.model.named_parameters() if each.requires_grad})
    for name, grad in found[0].items():
        assert grad.abs().sum() > 0, name
        torch.testing.assert_close(found[1][name], grad, atol=1e-5, rtol=1e-3)


@quantised
def test_a_gguf_file_is_quantised_anew(tmp_path, dataset, downloaded):
    pytest.importorskip("gguf")
    from transformers import LlamaForCausalLM

    from tests.fake_gguf import save_gguf

    tokenizer = byte_level_tokenizer(TITLES)
    file = save_gguf(tmp_path / "some.gguf", LlamaForCausalLM.from_pretrained(downloaded), tokenizer)
    model = load_policy(file, dataset, hardware=Hardware(quantization="4bit")).model
    assert model.model.layers[0].mlp.up_proj.weight.dtype == torch.uint8
    expected = load_policy(downloaded, dataset, hardware=Hardware(quantization="4bit")).model
    size = logits(expected).shape[2]
    torch.testing.assert_close(logits(model)[..., :size], logits(expected), atol=1e-4, rtol=1e-4)
