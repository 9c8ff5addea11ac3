"""Computed embeddings of item tokens: equal to written ones, trained, saved, resumed, exported; the reference stays."""

import copy

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from recalign.api import Row, UserError
from recalign.decoding.engine import PolicyEngine
from recalign.models.export import export_model
from recalign.models.item_embeddings import NAME, ItemEmbeddings
from recalign.models.lora import LoraOptions, reference_model
from recalign.models.modules import MODULES_FILE, attached
from recalign.models.policy import load_policy
from recalign.plugins.registry import create
from recalign.training.supervised import SftOptions, train_supervised
from recalign.training.trainer import RecalignTrainer
from recalign.training.training_options import TrainingOptions
from tests.fake_dataset import TITLES, write_dataset
from tests.fake_models import byte_level_tokenizer, save_model

TRAINING = TrainingOptions(epochs=2, batch_size=8, learning_rate=1e-2, eval_every=2, log_every=1)


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path / "data", identifier="atomic", task="next")


def backbone():
    return create("backbone", "item-vectors", {"dimensions": 6})


def train(dataset, out, resume=False, **options):
    asked = {"backbone": "item-vectors", "backbone_params": {"dimensions": 6}, "training": TRAINING, **options}
    return train_supervised(dataset, out, SftOptions(**asked), resume=resume)


def weights(folder):
    return {
        **load_file(folder / "model" / MODULES_FILE),
        **{f"lm.{key}": value for key, value in load_file(folder / "model" / "model.safetensors").items()},
    }


def logits(model, tokens):
    with torch.no_grad():
        return model.eval()(torch.as_tensor(tokens)[None]).logits[0]


def written(policy):
    """The same model with the computed embeddings in its matrix, and a head of its own."""
    module = attached(policy.model)[NAME]
    model = copy.deepcopy(policy.model)
    model.get_input_embeddings()._forward_hooks.clear()
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    with torch.no_grad():
        for item, path in enumerate(policy.titles.paths):
            model.get_input_embeddings().weight[int(path[0])] = module.projector(module.vectors[item])
    return model


def test_item_tokens_have_projected_vectors_and_other_tokens_their_rows(dataset):
    policy = load_policy("builtin:tiny", dataset, backbone=backbone())
    row = dataset.rows("train")[0]
    tokens = policy.prompter.encode(row)
    assert torch.allclose(logits(policy.model, tokens), logits(written(policy), tokens), atol=1e-6)
    bare = load_policy("builtin:tiny", dataset)
    assert not torch.allclose(logits(policy.model, tokens), logits(bare.model, tokens), atol=1e-3)


def test_searches_read_computed_embeddings(dataset):
    policy = load_policy("builtin:tiny", dataset, backbone=backbone())
    rows = dataset.rows("test")[:3]
    engine = PolicyEngine(policy, dataset.catalogue, exclude_history=False)
    items, scores = engine.beam(rows, width=5, size=5)
    plain = written(policy)
    for row, found, values in zip(rows, items.tolist(), scores.tolist(), strict=True):
        last = logits(plain, policy.prompter.encode(row))[-1]
        tokens = torch.tensor([int(path[0]) for path in policy.titles.paths])
        wanted = last[tokens].log_softmax(dim=0)
        assert found == wanted.topk(5).indices.tolist()
        assert values == pytest.approx(wanted.topk(5).values.tolist(), abs=1e-5)


def test_the_projector_learns_and_is_loaded_again(dataset, tmp_path):
    started = attached(load_policy("builtin:tiny", dataset, backbone=backbone()).model)[NAME]
    train(dataset, tmp_path / "out")
    policy = load_policy(str(tmp_path / "out"), dataset)
    module = attached(policy.model)[NAME]
    assert isinstance(module, ItemEmbeddings)
    assert torch.equal(module.vectors, started.vectors)
    assert not torch.allclose(module.projector.weight, started.projector.weight, atol=1e-3)
    assert torch.equal(module.projector.weight.detach(), weights(tmp_path / "out")[f"{NAME}.projector.weight"])
    train(dataset, tmp_path / "further", backbone=None, backbone_params={}, model=str(tmp_path / "out"))
    assert load_policy(str(tmp_path / "further"), dataset).settings["backbone"] == policy.settings["backbone"]


def test_an_interrupted_run_ends_bit_for_bit_where_the_other_ends(dataset, tmp_path, monkeypatch):
    train(dataset, tmp_path / "whole")
    step = RecalignTrainer.training_step

    def cut(self, *arguments, **keywords):
        if self.state.global_step == 3:
            raise KeyboardInterrupt
        return step(self, *arguments, **keywords)

    monkeypatch.setattr(RecalignTrainer, "training_step", cut)
    with pytest.raises(KeyboardInterrupt):
        train(dataset, tmp_path / "cut")
    monkeypatch.setattr(RecalignTrainer, "training_step", step)
    train(dataset, tmp_path / "cut", resume=True)
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[key], resumed[key]) for key in whole)


@pytest.mark.parametrize("adapter", [False, True])
def test_an_export_needs_no_backbone(dataset, tmp_path, adapter):
    options = {}
    if adapter:
        model = str(save_model(tmp_path / "hub", byte_level_tokenizer(TITLES), family="qwen2"))
        options = {"model": model, "lora": LoraOptions(rank=2)}
    train(dataset, tmp_path / "out", **options)
    export_model(str(tmp_path / "out"), tmp_path / "exported")
    policy = load_policy(str(tmp_path / "out"), dataset)
    tokens = policy.prompter.encode(dataset.rows("test")[0])
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "exported")
    assert torch.allclose(logits(plain, tokens), logits(policy.model, tokens), atol=1e-5)
    again = load_policy(str(tmp_path / "exported"), dataset)
    assert torch.allclose(logits(again.model, tokens), logits(policy.model, tokens), atol=1e-5)


@pytest.mark.parametrize("adapter", [False, True])
def test_the_reference_keeps_the_projector_that_it_began_with(dataset, tmp_path, adapter):
    name, lora = "builtin:tiny", None
    if adapter:
        name, lora = (
            str(save_model(tmp_path / "hub", byte_level_tokenizer(TITLES), family="qwen2")),
            LoraOptions(rank=2),
        )
    policy = load_policy(name, dataset, backbone=backbone(), lora=lora, trainable=True)
    tokens = policy.prompter.encode(dataset.rows("train")[0])
    before = logits(policy.model, tokens)
    reference = reference_model(policy.model)
    with torch.no_grad():
        attached(policy.model)[NAME].projector.weight.mul_(-3)
    with reference() as model:
        assert torch.equal(logits(model, tokens), before)
    assert not torch.allclose(logits(policy.model, tokens), before, atol=1e-3)


def test_prompts_without_items_still_reach_the_projector(dataset):
    policy = load_policy("builtin:tiny", dataset, backbone=backbone(), trainable=True)
    row = Row(0, "u", np.array([], dtype=np.int64), np.array([1]), np.array([1.0]), 0.0)
    policy.model(torch.as_tensor(policy.prompter.encode(row))[None]).logits.sum().backward()
    assert attached(policy.model)[NAME].projector.weight.grad.abs().sum() == 0


def test_titles_and_another_backbone_are_refused(dataset, tmp_path):
    titles = write_dataset(tmp_path / "titles", identifier="title", task="next")
    with pytest.raises(UserError, match="one added token per item"):
        train(titles, tmp_path / "out")
    train(dataset, tmp_path / "out")
    with pytest.raises(UserError, match="was trained with the backbone 'item-vectors'"):
        train(dataset, tmp_path / "more", model=str(tmp_path / "out"), backbone_params={"dimensions": 3})
    with pytest.raises(UserError, match="no backbone"):
        train(dataset, tmp_path / "none", backbone=None)
