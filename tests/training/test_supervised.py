"""Supervised training end to end: what it learns, what it writes, how it resumes, what it refuses."""

import os
import signal
from dataclasses import replace

import pytest
import torch

from recalign.errors import UserError
from recalign.models.lora import LoraOptions
from recalign.models.policy import load_policy
from recalign.models.weights import model_hash
from recalign.training.alignment import AlignOptions, with_defaults
from recalign.training.supervised import SftOptions, default_learning_rate, ensure_default_model, train_supervised
from recalign.training.trainer import RecalignTrainer, read_log
from recalign.training.training_options import TrainingOptions
from recalign.workspace import RunFolder, home
from tests.fake_dataset import TITLES, write_dataset
from tests.fake_models import byte_level_tokenizer, save_model

QUICK = TrainingOptions(epochs=2, batch_size=8, learning_rate=0, log_every=1)
OPTIONS = SftOptions(training=QUICK)


def figures(out, name):
    return [line[name] for line in read_log(out) if name in line]


@pytest.mark.parametrize("task", ["list", "next"])
@pytest.mark.parametrize("identifier", ["title", "atomic"])
def test_a_tiny_model_learns_where_users_go(tmp_path, task, identifier):
    dataset = write_dataset(tmp_path / "data", task=task, identifier=identifier, users=60)
    options = replace(OPTIONS, training=replace(QUICK, epochs=6, best_metric="metric"))
    results = train_supervised(dataset, tmp_path / "run", options)
    assert figures(tmp_path / "run", "eval_loss")[-1] < 0.5 * figures(tmp_path / "run", "eval_loss")[0]
    assert results["best_metric"] == max(figures(tmp_path / "run", "eval_metric"))
    assert results["best_metric"] > 0.5
    policy = load_policy(tmp_path / "run", dataset)
    assert policy.settings["base_model"] == "builtin:tiny"
    assert RunFolder(tmp_path / "run").record["results"] == results


@pytest.mark.parametrize("objective", ["sft", "msl", "bear"])
def test_every_token_objective_trains(tmp_path, objective):
    dataset = write_dataset(tmp_path / "data")
    options = replace(OPTIONS, objective=objective, loss_on="response")
    train_supervised(dataset, tmp_path / "run", options)
    losses = figures(tmp_path / "run", "loss")
    assert losses[-1] < losses[0]


UNEVEN = [*"ABCDEFG", "Red Sky", *(f"The Very Long Title of a Film, Number {number}" for number in range(12))]


@pytest.mark.parametrize(("objective", "params"), [("sft", {}), ("bear", {"beam": 3}), ("msl", {"adaptive": True})])
def test_accumulated_batches_of_uneven_answers_train_as_one_batch(tmp_path, objective, params):
    dataset = write_dataset(tmp_path / "data", task="next", titles=UNEVEN)
    rows = len(dataset.rows("train"))
    models = []
    for size in (rows, 5, 1):  # 5: the last batch of an update is a smaller one
        training = replace(QUICK, epochs=3, batch_size=size, gradient_accumulation=-(-rows // size), learning_rate=1e-3)
        options = replace(OPTIONS, objective=objective, params=params, training=training, loss_on="response")
        results = train_supervised(dataset, tmp_path / f"run{size}", options)
        assert results["updates"] == 3
        models.append(load_policy(tmp_path / f"run{size}", dataset).model)
    losses = [figures(tmp_path / f"run{size}", "loss") for size in (rows, 5, 1)]
    norms = [figures(tmp_path / f"run{size}", "grad_norm") for size in (rows, 5, 1)]
    assert len(losses[0]) == 3
    for other in (1, 2):
        assert losses[other] == pytest.approx(losses[0], rel=1e-4)
        assert norms[other] == pytest.approx(norms[0], rel=1e-3)  # clipped after the gradients are scaled
        for one, same in zip(models[0].parameters(), models[other].parameters(), strict=True):
            torch.testing.assert_close(one, same, atol=2e-4, rtol=0)


@pytest.mark.parametrize("lora", [None, LoraOptions(rank=4)])
@pytest.mark.parametrize("template", ["alpaca", "chat"])
def test_a_pretrained_model_trains_in_full_and_with_an_adapter(tmp_path, template, lora):
    dataset = write_dataset(tmp_path / "data", identifier="atomic")
    hub = save_model(tmp_path / "hub", byte_level_tokenizer(TITLES, chat=True), context=1024)
    training = replace(QUICK, learning_rate=1e-2)
    options = SftOptions(model=str(hub), template=template, lora=lora, training=training, metric="recall@3")
    train_supervised(dataset, tmp_path / "run", options)
    losses = figures(tmp_path / "run", "loss")
    assert losses[-1] < losses[0]
    assert (tmp_path / "run" / "model" / "adapter_model.safetensors").exists() == (lora is not None)
    loaded = load_policy(tmp_path / "run", dataset)
    assert loaded.prompter.template.name == template


def test_from_scratch_every_token_teaches_and_from_pretrained_the_response_does(tmp_path, monkeypatch):
    dataset = write_dataset(tmp_path / "data")
    hub = save_model(tmp_path / "hub", byte_level_tokenizer(TITLES), context=1024)
    learnt = {}
    original = RecalignTrainer.training_step

    def spy(self, model, inputs, *rest, **keywords):
        learnt.setdefault(self.policy.from_scratch, int((inputs.labels >= 0).sum()) / len(inputs.examples))
        return original(self, model, inputs, *rest, **keywords)

    monkeypatch.setattr(RecalignTrainer, "training_step", spy)
    for place, name in enumerate(("builtin:tiny", str(hub))):
        train_supervised(dataset, tmp_path / f"run{place}", replace(OPTIONS, model=name))
    # History of 5 and 3 targets in titles of two words with separators, and the end; without what starts the row.
    assert learnt[True] == 8 * 2 + 7 + 1
    policy = load_policy(hub, dataset)
    assert learnt[False] == pytest.approx(len(policy.titles.response([0, 1, 2])), rel=0.2)


def test_an_interrupted_run_is_marked_and_resumes_on_the_same_curve(tmp_path, monkeypatch):
    dataset = write_dataset(tmp_path / "data")
    train_supervised(dataset, tmp_path / "whole", OPTIONS)
    original = RecalignTrainer.training_step

    def interrupted(self, *arguments, **keywords):
        if self.state.global_step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *arguments, **keywords)

    monkeypatch.setattr(RecalignTrainer, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_supervised(dataset, tmp_path / "cut", OPTIONS)
    monkeypatch.setattr(RecalignTrainer, "training_step", original)
    assert RunFolder(tmp_path / "cut").record["status"] == "interrupted"
    assert not (tmp_path / "cut" / "model").exists()
    with pytest.raises(UserError, match="--resume"):
        train_supervised(dataset, tmp_path / "cut", OPTIONS)
    train_supervised(dataset, tmp_path / "cut", OPTIONS, resume=True)
    for name in ("loss", "eval_loss", "eval_metric"):
        assert figures(tmp_path / "cut", name) == figures(tmp_path / "whole", name)
    one, other = (load_policy(tmp_path / name, dataset).model for name in ("whole", "cut"))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_finished_run_is_left_alone_and_another_is_refused(tmp_path):
    dataset = write_dataset(tmp_path / "data")
    first = train_supervised(dataset, tmp_path / "run", OPTIONS)
    changed = (tmp_path / "run" / "model" / "model.safetensors").stat().st_mtime_ns
    assert train_supervised(dataset, tmp_path / "run", OPTIONS) == first
    assert (tmp_path / "run" / "model" / "model.safetensors").stat().st_mtime_ns == changed
    other = replace(OPTIONS, training=replace(QUICK, epochs=1))
    with pytest.raises(UserError, match="another run"):
        train_supervised(dataset, tmp_path / "run", other)
    assert train_supervised(dataset, tmp_path / "run", other, overwrite=True)["updates"] == 3


def test_a_wrong_input_leaves_no_run_behind(tmp_path):
    dataset = write_dataset(tmp_path / "data")
    wrong = [
        (replace(OPTIONS, model=str(tmp_path / "nothing")), "does not exist"),
        (replace(OPTIONS, objective="grpo"), "recalign align"),
        (replace(OPTIONS, objective="msl", loss_on="all"), "--loss-on"),
        (replace(OPTIONS, metric="ndcg@9"), "9"),
        (replace(OPTIONS, metric="", training=replace(QUICK, best_metric="metric")), "--metric"),
    ]
    for options, word in wrong:
        with pytest.raises(UserError, match=word):
            train_supervised(dataset, tmp_path / "run", options)
        assert not (tmp_path / "run").exists()


def test_truncated_prompts_are_counted(tmp_path):
    dataset = write_dataset(tmp_path / "data", identifier="atomic")
    results = train_supervised(dataset, tmp_path / "run", replace(OPTIONS, max_length=8, loss_on="response"))
    assert results["truncated"] >= 24  # every history has five items; <bos> and three fit
    whole = train_supervised(dataset, tmp_path / "whole", OPTIONS)
    assert whole["truncated"] == 0


def test_learning_rates_suit_the_kind_of_training():
    assert default_learning_rate("builtin:tiny,hidden=32", None) == 5e-3
    assert default_learning_rate("org/model", LoraOptions()) == 1e-4
    assert default_learning_rate("org/model", None) == 2e-5


def test_an_adapter_that_is_trained_further_has_an_adapter_s_learning_rates(tmp_path):
    for place, file in (("whole", "config.json"), ("adapted", "adapter_config.json")):
        (tmp_path / place / "model").mkdir(parents=True)
        (tmp_path / place / "model" / file).write_text("{}", "utf-8")
    assert default_learning_rate(str(tmp_path / "adapted"), None) == 1e-4
    assert default_learning_rate(str(tmp_path / "whole"), None) == 2e-5
    rates = [
        with_defaults(AlignOptions(model=str(tmp_path / name))).training.learning_rate for name in ("adapted", "whole")
    ]
    assert rates == pytest.approx([5e-5, 5e-6])


def test_the_default_model_is_trained_once(tmp_path, monkeypatch):
    dataset = write_dataset(tmp_path / "data")
    assert ensure_default_model(dataset) == home() / "sft"
    asked = RunFolder(home() / "sft").record["options"]["training"]
    assert (asked["learning_rate"], asked["epochs"]) == (5e-3, 5.0)  # as `recalign sft` without options
    monkeypatch.setattr("recalign.training.supervised.train_supervised", None)
    assert ensure_default_model(dataset) == home() / "sft"


def test_a_models_hash_follows_its_weights(tmp_path):
    hub = save_model(tmp_path / "hub", byte_level_tokenizer(TITLES))
    same = save_model(tmp_path / "same", byte_level_tokenizer(TITLES))
    other = save_model(tmp_path / "other", byte_level_tokenizer(TITLES), seed=1)
    assert model_hash(str(hub)) == model_hash(str(same)) != model_hash(str(other))
    assert model_hash("builtin:tiny") == "builtin:tiny"
