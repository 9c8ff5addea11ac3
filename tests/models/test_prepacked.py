import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model

from recalign.models import prepacked as kernels
from recalign.models.prepacked import Layouts, prepacked, prepacked_frozen
from tests.decoding.doubles import make_engine, random_paths, row, tiny_model

NEEDS_ONEDNN = pytest.mark.skipif(not kernels._available(), reason="this PyTorch has no oneDNN")


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
@torch.no_grad()
def test_logits_are_those_of_the_plain_layers_which_come_back(kind):
    model = tiny_model(kind)
    tokens = torch.arange(12).view(2, 6)
    wanted = model(tokens).logits
    with prepacked(model):
        found = model(tokens).logits
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert torch.equal(model(tokens).logits, wanted)
    assert not any("forward" in vars(module) for module in model.modules())


@torch.no_grad()
def test_each_use_has_the_weights_of_its_time():
    layer = torch.nn.Linear(8, 4)
    inputs = torch.randn(3, 8)
    for _ in range(2):
        with prepacked(layer):
            torch.testing.assert_close(layer(inputs), torch.nn.functional.linear(inputs, layer.weight, layer.bias))
        layer.weight.data = layer.weight.data * 2


def test_other_kinds_of_layers_are_left_alone():
    class Scaled(torch.nn.Linear):
        def forward(self, inputs):
            return 3 * super().forward(inputs)

    model = torch.nn.Sequential(Scaled(8, 8), torch.nn.Linear(8, 4, dtype=torch.float64))
    with prepacked(model):
        assert not any("forward" in vars(module) for module in model)


def test_a_layer_that_was_given_another_forward_keeps_it():
    layer = torch.nn.Linear(4, 4)
    layer.forward = lambda inputs: 100 * inputs
    with prepacked(layer):
        assert layer(torch.ones(1, 4)).tolist() == [[100.0] * 4]
    assert layer(torch.ones(1, 4)).tolist() == [[100.0] * 4]


@torch.no_grad()
def test_weights_that_lie_otherwise_in_memory_and_inputs_without_rows():
    for weight in (torch.randn(33, 17).t(), torch.randn(17, 66)[:, ::2], torch.randn(30, 33)[5:22]):
        layer = torch.nn.Linear(33, 17)
        layer.weight = torch.nn.Parameter(weight)
        for inputs in (torch.randn(5, 33), torch.randn(2, 33, 3).transpose(1, 2), torch.randn(1, 0, 33)):
            wanted = layer(inputs)
            with prepacked(layer):
                torch.testing.assert_close(layer(inputs), wanted, atol=1e-5, rtol=1e-5)


CHANGES = {
    "in place": lambda model: model[0].weight.mul_(2),
    "other memory": lambda model: setattr(model[0].weight, "data", torch.randn(4, 8)),
    "unseen by autograd": lambda model: model[0].weight.data.add_(torch.ones(4, 1) @ torch.ones(1, 8)),
    "another parameter": lambda model: setattr(model[0], "weight", torch.nn.Parameter(torch.randn(4, 8), False)),
}


@NEEDS_ONEDNN
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("trained", [False, True])
@torch.no_grad()
def test_layouts_outlast_a_call_where_nothing_is_trained(trained, change, made):
    model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Linear(4, 4)).requires_grad_(False)
    model[1].bias.requires_grad_(trained)
    layouts, inputs = Layouts(), torch.randn(3, 8)

    def call():
        wanted = model(inputs)
        with prepacked(model, layouts):
            torch.testing.assert_close(model(inputs), wanted)
        return len(made)

    assert call() == 2 and call() == (4 if trained else 2)
    before = len(made)
    CHANGES[change](model)
    assert call() == before + (2 if trained else 1)


@torch.no_grad()
def test_biases_are_those_of_the_call():
    layer = torch.nn.Linear(8, 4).requires_grad_(False)
    layouts, inputs = Layouts(), torch.randn(3, 8)
    for bias in (layer.bias, torch.nn.Parameter(torch.randn(4), False), None):
        layer.bias = bias
        for _ in range(2):
            wanted = layer(inputs)
            with prepacked(layer, layouts), prepacked_frozen(layer):
                torch.testing.assert_close(layer(inputs), wanted)
            if bias is not None:
                bias.data.add_(1)


@torch.no_grad()
def test_an_adapter_that_is_merged_between_two_calls_is_seen():
    model = get_peft_model(tiny_model("llama"), LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    model.requires_grad_(False)
    paths, rows = random_paths(40), [row(0, [1, 2]), row(1, [3])]
    engine = make_engine(paths, model=model)

    def items():
        return engine.beam(rows, width=5, size=5)[0].tolist()

    first = items()
    model.base_model.disable_adapter_layers()
    alone = items()
    assert alone != first
    model.base_model.enable_adapter_layers()
    model.merge_adapter()
    assert items() == first
    model.unmerge_adapter()
    assert items() == first


def test_weights_made_for_inference_alone_are_laid_out_too():
    with torch.inference_mode():
        layer = torch.nn.Linear(8, 4).requires_grad_(False)
        layouts, inputs = Layouts(), torch.randn(3, 8)
        for _ in range(2):
            wanted = layer(inputs)
            with prepacked(layer, layouts):
                torch.testing.assert_close(layer(inputs), wanted)


@torch.no_grad()
def test_under_autocast_the_plain_layers_serve():
    model = tiny_model("llama")
    tokens = torch.arange(12).view(2, 6)
    with torch.autocast("cpu", torch.bfloat16):
        wanted = model(tokens).logits
        with prepacked(model):
            assert torch.equal(model(tokens).logits, wanted)
    assert wanted.dtype == torch.bfloat16


@pytest.mark.parametrize("missing", ["memory", "oneDNN"])
def test_without_room_or_onednn_the_plain_layers_serve(missing, monkeypatch):
    layer = torch.nn.Linear(8, 4)
    with prepacked(layer):
        assert ("forward" in vars(layer)) == kernels._available()
    if missing == "memory":
        monkeypatch.setattr(kernels, "MOST", 8 * 4 * 4 - 1)
    else:
        monkeypatch.setattr(kernels, "_available", lambda: False)
    with prepacked(layer):
        assert "forward" not in vars(layer)


@pytest.mark.parametrize("trouble", [AttributeError("no such operator"), RuntimeError("no such primitive"), "wrong"])
def test_operators_that_are_missing_or_wrong_are_found_out(trouble, monkeypatch):
    class Troubled(kernels.LaidOut):
        def product(self, inputs, bias=None):
            if isinstance(trouble, Exception):
                raise trouble
            return inputs @ self.weight.T

    monkeypatch.setattr(kernels, "LaidOut", Troubled)
    assert not kernels._available.__wrapped__()


@NEEDS_ONEDNN
def test_the_engine_uses_them_and_answers_the_same(made, monkeypatch):
    paths = random_paths(60)
    rows = [row(i, [i, 2 * i]) for i in range(4)]
    model = tiny_model("llama")
    items, scores = make_engine(paths, model=copy.deepcopy(model)).beam(rows, width=5, size=5, scoring="full")
    assert len(made) == 7 * 2 + 1
    monkeypatch.setattr(kernels, "_available", lambda: False)
    plain, plain_scores = make_engine(paths, model=model).beam(rows, width=5, size=5, scoring="full")
    assert items.tolist() == plain.tolist()
    torch.testing.assert_close(scores, plain_scores, atol=1e-5, rtol=0)


def test_a_frozen_bias_is_added_and_inputs_that_lie_otherwise_have_their_gradients():
    layer = torch.nn.Linear(33, 17).requires_grad_(False)
    for inputs in (torch.randn(2, 33, 3).transpose(1, 2), torch.randn(1, 0, 33), torch.randn(5, 33)):
        inputs.requires_grad_()
        (wanted,) = torch.autograd.grad(layer(inputs).cos().sum(), inputs)
        with prepacked_frozen(layer):
            (found,) = torch.autograd.grad(layer(inputs).cos().sum(), inputs)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_layers_that_are_trained_keep_their_product_and_so_do_those_that_are_unfrozen_within():
    trained, frozen = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8).requires_grad_(False)
    inputs = torch.randn(3, 8)
    with prepacked_frozen(torch.nn.Sequential(trained, frozen)):
        assert "forward" not in vars(trained)
        frozen(inputs)
        frozen.requires_grad_(True)
        frozen(inputs).sum().backward()
    torch.testing.assert_close(frozen.weight.grad, inputs.sum(dim=0).expand(8, 8))


@NEEDS_ONEDNN
def test_a_large_head_that_runs_at_few_tokens_has_no_layout(made, monkeypatch):
    monkeypatch.setattr(kernels, "LARGE", 8 * 40)
    monkeypatch.setattr(kernels, "FEW", 5)
    head = torch.nn.Linear(8, 40, bias=False).requires_grad_(False)
    with prepacked_frozen(head):
        for rows, layouts in ((4, 0), (5, 2)):
            inputs = torch.randn(rows, 8, requires_grad=True)
            found = torch.autograd.grad(head(inputs).cos().sum(), inputs)[0]
            wanted = torch.autograd.grad(torch.nn.functional.linear(inputs, head.weight).cos().sum(), inputs)[0]
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
            assert len(made) == layouts


def test_weights_that_change_within_are_laid_out_anew():
    layer = torch.nn.Linear(8, 4).requires_grad_(False)
    inputs = torch.randn(3, 8, requires_grad=True)

    def check():
        found = layer(inputs)
        torch.testing.assert_close(found, torch.nn.functional.linear(inputs, layer.weight, layer.bias))
        (gradient,) = torch.autograd.grad(found.sum(), inputs)
        torch.testing.assert_close(gradient, layer.weight.sum(dim=0).expand(3, 8))

    with prepacked_frozen(layer):
        check()
        layer.weight.mul_(2)
        check()
        layer.weight.data = torch.randn(4, 8)
        check()


def test_layouts_of_frozen_weights_need_room_for_two(monkeypatch):
    layer = torch.nn.Linear(8, 4).requires_grad_(False)
    monkeypatch.setattr(kernels, "MOST", 2 * 8 * 4 * 4 - 1)
    with prepacked_frozen(layer):
        assert "forward" not in vars(layer)
    with prepacked(layer):
        assert ("forward" in vars(layer)) == kernels._available()
