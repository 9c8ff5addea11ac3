import copy

import pytest
import torch

from recalign.generation import kernels
from recalign.generation.kernels import laid_out
from tests.generation.doubles import make_engine, random_paths, row, tiny_model


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
@torch.no_grad()
def test_logits_are_those_of_the_plain_layers_which_come_back(kind):
    model = tiny_model(kind)
    tokens = torch.arange(12).view(2, 6)
    wanted = model(tokens).logits
    with laid_out(model):
        found = model(tokens).logits
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert torch.equal(model(tokens).logits, wanted)
    assert not any("forward" in vars(module) for module in model.modules())


@torch.no_grad()
def test_each_use_has_the_weights_of_its_time():
    layer = torch.nn.Linear(8, 4)
    inputs = torch.randn(3, 8)
    for _ in range(2):
        with laid_out(layer):
            torch.testing.assert_close(layer(inputs), torch.nn.functional.linear(inputs, layer.weight, layer.bias))
        layer.weight.data = layer.weight.data * 2


def test_other_kinds_of_layers_are_left_alone():
    class Scaled(torch.nn.Linear):
        def forward(self, inputs):
            return 3 * super().forward(inputs)

    model = torch.nn.Sequential(Scaled(8, 8), torch.nn.Linear(8, 4, dtype=torch.float64))
    with laid_out(model):
        assert not any("forward" in vars(module) for module in model)


@pytest.mark.parametrize("missing", ["memory", "oneDNN"])
def test_without_room_or_onednn_the_plain_layers_serve(missing, monkeypatch):
    if missing == "memory":
        monkeypatch.setattr(kernels, "MOST", 8 * 4 * 4 - 1)
    else:
        monkeypatch.setattr(kernels, "_available", lambda: False)
    layer = torch.nn.Linear(8, 4)
    with laid_out(layer):
        assert "forward" not in vars(layer)


@pytest.mark.skipif(not kernels._available(), reason="this PyTorch has no oneDNN")
def test_the_engine_uses_them_and_answers_the_same(monkeypatch):
    paths = random_paths(60)
    rows = [row(i, [i, 2 * i]) for i in range(4)]
    used = []
    product = kernels._product
    monkeypatch.setattr(kernels, "_product", lambda *arguments: used.append(1) or product(*arguments))
    model = tiny_model("llama")
    items, scores = make_engine(paths, model=copy.deepcopy(model)).beam(rows, width=5, size=5, scoring="full")
    assert len(used) == 7 * 2 + 1
    monkeypatch.setattr(kernels, "_available", lambda: False)
    plain, plain_scores = make_engine(paths, model=model).beam(rows, width=5, size=5, scoring="full")
    assert items.tolist() == plain.tolist()
    torch.testing.assert_close(scores, plain_scores, atol=1e-5, rtol=0)
