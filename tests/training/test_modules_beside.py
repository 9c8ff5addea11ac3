"""Modules beside the language model: trained with it, saved, resumed bit for bit, exported, loaded again."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from recalign.api import NoParams, TokenNeeds, TokenObjective, UserError
from recalign.models.export import export_model
from recalign.models.lora import LoraOptions
from recalign.models.modules import MODULES_FILE, attached
from recalign.models.policy import load_policy
from recalign.plugins import registry
from recalign.training.supervised import SftOptions, train_supervised
from recalign.training.trainer import read_log
from recalign.training.training_options import TrainingOptions
from tests.fake_dataset import TITLES, write_dataset
from tests.fake_models import byte_level_tokenizer, save_model

TRAINING = TrainingOptions(epochs=2, batch_size=8, learning_rate=1e-2, eval_every=2, log_every=1)


class Counting(TokenObjective):
    """A head that reads the hidden states and learns to say how far an answer has come."""

    Params = NoParams
    needs = TokenNeeds(hidden_states=True, responses_only=True)
    width = 1

    @property
    def module_makers(self):
        return {"head": lambda hidden: torch.nn.Linear(hidden, self.width)}

    def loss(self, answers):
        _, lengths = answers.rows.unique_consecutive(return_counts=True)
        place = torch.cat([torch.arange(length) for length in lengths.tolist()]).to(answers.hidden)
        said = self.modules["head"](answers.hidden.float()).squeeze(1)
        return ((said - place) ** 2).mean(), {}


class Wider(Counting):
    width = 2


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path / "data", identifier="title", task="next")


@pytest.fixture
def objective(monkeypatch):
    def use(cls):
        create = registry.create
        made = lambda kind, name, params=None: cls(name=name) if name == "counting" else create(kind, name, params)  # noqa: E731
        monkeypatch.setattr(registry, "create", made)

    use(Counting)
    return use


def train(dataset, out, resume=False, **options):
    return train_supervised(
        dataset, out, SftOptions(**{"objective": "counting", "training": TRAINING, **options}), resume=resume
    )


def head(folder):
    return load_file(folder / "model" / MODULES_FILE)


def test_a_head_learns_is_saved_and_loaded_again(dataset, objective, tmp_path):
    train(dataset, tmp_path / "out")
    losses = [line["loss"] for line in read_log(tmp_path / "out") if "loss" in line]
    assert losses[-1] < losses[0]
    stored = head(tmp_path / "out")
    assert set(stored) == {"head.weight", "head.bias"}
    assert not any(
        "head" in key for key in load_file(tmp_path / "out" / "model" / "model.safetensors") if "lm_head" not in key
    )
    policy = load_policy(str(tmp_path / "out"), dataset)
    found = policy.attach(Counting().module_makers)
    assert torch.equal(found["head"].weight.detach(), stored["head.weight"])
    assert list(attached(policy.model)) == ["head"]


def test_an_interrupted_run_ends_bit_for_bit_where_the_other_ends(dataset, objective, tmp_path, monkeypatch):
    from recalign.training.trainer import RecalignTrainer

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
    whole, resumed = head(tmp_path / "whole"), head(tmp_path / "cut")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    one, other = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("whole", "cut"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_module_may_have_a_learning_rate_of_its_own(dataset, objective, tmp_path, monkeypatch):
    from recalign.training.trainer import RecalignTrainer

    rates = {}
    train_step = RecalignTrainer.training_step

    def look(self, *arguments, **keywords):
        groups = [(group["lr"], len(group["params"])) for group in self.optimizer.param_groups]
        rates.setdefault(self.state.global_step, groups)
        return train_step(self, *arguments, **keywords)

    monkeypatch.setattr(RecalignTrainer, "training_step", look)
    train(dataset, tmp_path / "one", training=replace(TRAINING, module_learning_rate=0.5, warmup=0.0))
    (_, matrices), (_, others), (weight_rate, weights), (bias_rate, biases) = rates[0]
    assert (weight_rate, bias_rate, weights, biases) == (0.5, 0.5, 1, 1)
    assert all(groups[2][0] == pytest.approx(50 * groups[0][0]) for groups in rates.values())  # of 0.5 to 1e-2
    rates.clear()
    train(dataset, tmp_path / "other", training=replace(TRAINING, warmup=0.0))
    assert [count for _, count in rates[0]] == [matrices + 1, others + 1]


def test_a_head_beside_an_adapter_is_saved_and_exported_with_the_merged_model(dataset, objective, tmp_path):
    model = str(save_model(tmp_path / "hub", byte_level_tokenizer(TITLES), family="qwen2"))
    train(dataset, tmp_path / "out", model=model, lora=LoraOptions(rank=2))
    export_model(str(tmp_path / "out"), tmp_path / "exported")
    assert load_file(tmp_path / "exported" / MODULES_FILE).keys() == head(tmp_path / "out").keys()


def test_a_head_of_another_shape_is_refused(dataset, objective, tmp_path):
    train(dataset, tmp_path / "out")
    objective(Wider)
    with pytest.raises(UserError, match="has other weights than 'head' needs"):
        train(dataset, tmp_path / "again", model=str(tmp_path / "out"))
