import copy

import pytest
import torch
from peft import load_peft_weights

from recalign.models import prepacked as kernels
from recalign.models.checkpointing import checkpoint_gradients
from recalign.models.lora import LoraOptions, attach_adapter
from recalign.models.products import inference_products, training_products
from tests.decoding.doubles import tiny_model


def adapted(**options):
    """A tied Llama with an adapter whose B is not zero, so that every gradient is seen."""
    torch.manual_seed(0)
    model = attach_adapter(tiny_model("llama", tie_word_embeddings=True), LoraOptions(rank=4, **options), [])
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def losses_and_gradients(model, batches=2):
    """Of an update that accumulates batches, with a padded row each; gradients are cleared."""
    losses = []
    for number in range(batches):
        tokens = torch.arange(12).add(5 * number).view(2, 6) % 41
        mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])
        loss = model(tokens, attention_mask=mask, labels=tokens).loss
        loss.backward()
        losses.append(loss.item())
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return losses, found


def assert_alike(found, wanted):
    assert found[0] == pytest.approx(wanted[0], rel=1e-5)
    assert found[1].keys() == wanted[1].keys()
    for name, gradient in wanted[1].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-5, atol=1e-5 * float(gradient.abs().max()))


@pytest.mark.parametrize("checkpointed", [False, True])
def test_an_adapter_has_the_losses_and_gradients_of_the_plain_layers(checkpointed, made):
    model = adapted().train()
    wanted = losses_and_gradients(model)
    assert len(wanted[1]) == 2 * 7 * 2 and all(gradient.any() for gradient in wanted[1].values())
    if checkpointed:
        checkpoint_gradients(model)
    with training_products(model):
        assert_alike(losses_and_gradients(model), wanted)
        # the first layer's query, key and value need no gradient of the embeddings
        assert len(made) == (2 * (2 * 7 + 1) - 3 if kernels._available() else 0)
    assert_alike(losses_and_gradients(model), wanted)
    assert not any("forward" in vars(module) for module in model.modules())


def test_what_peft_does_with_an_adapter_beside_adding_its_term_is_done():
    tokens = torch.arange(12).view(2, 6)
    model = adapted(dropout=0.5).train()
    torch.manual_seed(1)
    wanted = losses_and_gradients(model)
    with training_products(model):
        torch.manual_seed(1)
        assert_alike(losses_and_gradients(model), wanted)
    model = adapted().eval()
    with torch.no_grad():
        with model.disable_adapter():
            without = model(tokens).logits
        with training_products(model), model.disable_adapter():
            torch.testing.assert_close(model(tokens).logits, without, rtol=1e-5, atol=1e-5)
    model.add_adapter("other", model.peft_config["default"])
    model.base_model.set_adapter(["default", "other"])
    for name, parameter in model.named_parameters():
        if "lora_B.other" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    wanted = losses_and_gradients(model)
    assert len(wanted[1]) == 2 * 2 * 7 * 2
    with training_products(model):
        assert_alike(losses_and_gradients(model), wanted)


def cast(model, dtype):
    """The base's weights in another type; the adapter's stay float32, as peft keeps them."""
    for name, parameter in model.named_parameters():
        if "lora_" not in name:
            parameter.data = parameter.data.to(dtype)
    return model


@pytest.mark.parametrize("base", [torch.bfloat16, torch.float32])
def test_under_autocast_losses_and_gradients_are_those_of_peft_to_rounding(base):
    model = cast(adapted().train(), base)
    exact = losses_and_gradients(cast(copy.deepcopy(model), torch.float32))
    with torch.autocast("cpu", torch.bfloat16):
        wanted = losses_and_gradients(model)
        with training_products(model):
            found = losses_and_gradients(model)
    assert all(gradient.dtype == torch.float32 for gradient in found[1].values())
    assert found[0] == pytest.approx(wanted[0], rel=2e-2)
    for name, gradient in exact[1].items():
        size = gradient.norm()
        assert (found[1][name] - gradient).norm() <= 1.5 * (wanted[1][name] - gradient).norm() + 1e-3 * size
        assert (found[1][name] - gradient).norm() <= 0.1 * size


@pytest.mark.parametrize("gradients", [False, True])
def test_a_base_of_bfloat16_computes_its_adapter_in_bfloat16(gradients):
    model = cast(adapted().eval(), torch.bfloat16)
    tokens = torch.arange(12).view(2, 6)
    with torch.no_grad():
        exact = cast(copy.deepcopy(model), torch.float32)(tokens).logits
        wanted = model(tokens).logits
    with training_products(model), torch.set_grad_enabled(gradients):
        found = model(tokens).logits.detach()
    with inference_products(model), torch.no_grad():
        inferred = model(tokens).logits
        assert torch.equal(model(tokens).logits, inferred)  # what was cast once is used again
    assert found.dtype == wanted.dtype == torch.bfloat16
    torch.testing.assert_close(found, inferred, rtol=2e-2, atol=2e-2)
    assert (found - exact).norm() <= 1.5 * (wanted - exact).norm()


@torch.no_grad()
def test_an_adapter_that_changes_between_uses_is_seen():
    model = adapted().eval()
    tokens = torch.arange(12).view(2, 6)
    with training_products(model):
        for _ in range(2):
            with inference_products(model):
                found = model(tokens).logits
            torch.testing.assert_close(found, model(tokens).logits)
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.mul_(2)
    torch.testing.assert_close(found, halved(model)(tokens).logits, rtol=1e-4, atol=1e-4)
    assert not any("forward" in vars(module) for module in model.modules())


def halved(model):
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.div_(2)
    return model


def test_a_layer_that_was_given_another_forward_keeps_it():
    model = adapted().eval()
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    layer.forward = lambda inputs: 100 * inputs
    with training_products(model), inference_products(model), torch.no_grad():
        assert layer(torch.ones(1, 4)).tolist() == [[100.0] * 4]


def test_a_base_that_is_trained_too_has_its_gradient():
    model = adapted().train()
    base = model.base_model.model.model.layers[0].mlp.up_proj.base_layer
    base.weight.requires_grad_(True)
    wanted = losses_and_gradients(model)
    with training_products(model):
        assert_alike(losses_and_gradients(model), wanted)
    assert any("base_layer" in name for name in wanted[1])


def test_a_model_is_saved_and_copied_within_as_without_and_merged_afterwards(tmp_path):
    model = adapted()
    tokens = torch.arange(12).view(2, 6)
    with training_products(model), torch.no_grad():
        wanted = model(tokens).logits
        model.save_pretrained(tmp_path)
        assert not [name for name in model.state_dict() if "forward" in name]
        torch.testing.assert_close(copy.deepcopy(model)(tokens).logits, wanted)
        with inference_products(model):
            torch.testing.assert_close(model(tokens).logits, wanted, rtol=1e-4, atol=1e-4)
    assert len(load_peft_weights(str(tmp_path))) == 2 * 7 * 2
    merged = model.merge_and_unload()
    with training_products(merged):
        torch.testing.assert_close(merged(tokens).logits, wanted, rtol=1e-4, atol=1e-4)
