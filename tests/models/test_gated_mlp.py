import contextlib
import copy

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaMLP

from recalign.models.checkpointing import checkpoint_gradients
from recalign.models.gated_mlp import gated_products
from recalign.models.lora import LoraOptions, attach_adapter
from recalign.models.products import training_products
from tests.decoding.doubles import tiny_model
from tests.models.test_fused_lora import adapted, assert_alike, losses_and_gradients


def kept_for_backward(model, within):
    """Bytes that autograd keeps of one forward pass, each storage counted once."""
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    tokens = torch.arange(24).view(2, 12)
    with within(model), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(tokens, labels=tokens)
    return sum(size for storage, size in storages.items() if storage not in weights)


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral"])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_losses_and_gradients_are_those_of_the_layers_themselves(family, checkpointed):
    torch.manual_seed(0)
    model = tiny_model(family).train()
    wanted = losses_and_gradients(model)
    if checkpointed:
        checkpoint_gradients(model)
    with gated_products(model):
        changed = [module for module in model.modules() if "forward" in vars(module)]
        assert len(changed) == model.config.num_hidden_layers
        assert_alike(losses_and_gradients(model), wanted)
        assert all(module.forward.plain for module in changed)
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("base", [torch.float32, torch.bfloat16])
def test_in_either_type_gradients_are_bit_for_bit_those_of_autograd(base):
    torch.manual_seed(0)
    model = tiny_model("llama").to(base).train()
    wanted = losses_and_gradients(model)
    with gated_products(model):
        found = losses_and_gradients(model)
    assert found[0] == wanted[0]
    assert all(torch.equal(found[1][name], gradient) for name, gradient in wanted[1].items())


def test_less_is_kept_with_an_adapter_on_the_layer_without_one_and_with_nothing_frozen():
    torch.manual_seed(0)
    wide = {"intermediate_size": 256}
    full = tiny_model("llama", **wide).train()
    layers, tensor = full.config.num_hidden_layers, 2 * 12 * 256 * 4  # bytes of one tensor of the layer's width
    with_all = attach_adapter(copy.deepcopy(full), LoraOptions(rank=4), [])
    attention_alone = attach_adapter(copy.deepcopy(full), LoraOptions(rank=4, target=("q_proj",)), [])

    def saved(model, within):
        return (kept_for_backward(model, contextlib.nullcontext) - kept_for_backward(model, within)) / tensor

    assert saved(full, gated_products) == pytest.approx(layers, abs=0.01)  # act(gate); by the product `down` learns
    assert saved(with_all, training_products) >= 2 * layers
    assert saved(attention_alone, training_products) >= layers


class Scaled(LlamaMLP):
    """Has the parts of a gated layer and does more with them."""

    def forward(self, inputs):
        return 2 * super().forward(inputs)


def test_a_layer_that_does_more_keeps_its_own_forward():
    torch.manual_seed(0)
    model = tiny_model("llama").train()
    model.model.layers[0].mlp.__class__ = Scaled
    wanted = losses_and_gradients(model)
    with gated_products(model):
        assert_alike(losses_and_gradients(model), wanted)
        assert model.model.layers[0].mlp.forward.plain is False
        assert model.model.layers[1].mlp.forward.plain is True


def test_an_activation_that_learns_leaves_the_layer_as_it_is():
    torch.manual_seed(0)
    model = tiny_model("llama").train()
    for layer in model.model.layers:
        layer.mlp.act_fn = torch.nn.PReLU()
    wanted = losses_and_gradients(model)
    assert any("act_fn" in name for name in wanted[1])
    with gated_products(model):
        assert_alike(losses_and_gradients(model), wanted)


def test_dropout_of_an_adapter_draws_the_same_numbers_in_every_pass():
    model = adapted(dropout=0.5).train()
    torch.manual_seed(1)
    wanted = losses_and_gradients(model)
    with training_products(model):
        torch.manual_seed(1)
        assert_alike(losses_and_gradients(model), wanted)  # the trial of each layer drew none
        assert all(module.training for module in model.modules())


def test_what_hooks_the_last_layer_sees_its_input():
    model = adapted().train()
    wanted = losses_and_gradients(model)
    seen = []
    down = model.base_model.model.model.layers[0].mlp.down_proj
    down.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].shape[-1]))
    with training_products(model):
        assert_alike(losses_and_gradients(model), wanted)
    assert seen == [down.in_features] * 4  # the trial: the layer's own product and ours; then two batches


def test_two_adapters_at_once_go_peft_s_own_way():
    model = adapted().train()
    model.add_adapter("other", model.peft_config["default"])
    model.base_model.set_adapter(["default", "other"])
    wanted = losses_and_gradients(model)
    with training_products(model):
        assert_alike(losses_and_gradients(model), wanted)
