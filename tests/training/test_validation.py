"""Validation losses: the objective's own, whatever its normaliser and the batches, and what picks a checkpoint."""

import pytest
import torch

from recalign.api import NoParams, TokenObjective, UserError
from recalign.decoding.engine import PolicyEngine
from recalign.models.policy import load_policy
from recalign.objectives.sft import Sft
from recalign.plugins import registry
from recalign.plugins.registry import create
from recalign.training.offline.examples import AnswerExamples, collate
from recalign.training.offline.token_step import TokenStep
from recalign.training.supervised import SftOptions, train_supervised
from recalign.training.trainer import read_log
from recalign.training.training_options import TrainingOptions
from recalign.training.validation import validation_loss
from tests.fake_dataset import write_dataset

MODEL = "builtin:tiny,hidden=16,heads=2"
TRAINING = TrainingOptions(epochs=4, batch_size=8, learning_rate=5e-3, best_metric="auto")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    titles = ["A", "B", "C", "Red Sky at Night", "Red Sky at Day", *(f"Long Title Number {n}" for n in range(15))]
    return write_dataset(tmp_path_factory.mktemp("validation") / "data", task="next", titles=titles)


def step_of(dataset, objective, model=MODEL):
    policy = load_policy(model, dataset)
    policy.model.eval()
    return TokenStep(policy, objective, PolicyEngine(policy, dataset.catalogue, exclude_history=True))


@pytest.mark.parametrize("name", ["sft", "msl", "bear", "beam-exact", "cft", "igd"])
def test_the_loss_is_the_objectives_over_all_rows_however_they_are_cut(dataset, name):
    step, rows = step_of(dataset, create("objective", name)), dataset.rows("valid")[:9]
    examples = AnswerExamples(step.policy, rows, 1)
    whole = collate([examples[0, index] for index in range(len(rows))], pad=0, all_tokens=False)
    with torch.no_grad():
        answers = step.answers(step.policy.model, whole)
        expected = step.objective.loss(answers)[0].item(), Sft().loss(answers)[0].item()
    for size in (2, 64):
        assert validation_loss(step, rows, size) == pytest.approx(expected, rel=1e-4)


def test_the_loss_of_msl_is_the_log_probability_that_beam_search_gives_the_targets(dataset):
    step, rows = step_of(dataset, create("objective", "msl")), dataset.rows("valid")
    items, scores = step.engine.beam(rows, width=15, size=15)  # all but the history
    total = sum(float(scores[place, items[place] == int(row.targets[0])][0]) for place, row in enumerate(rows))
    tokens = sum(len(step.policy.titles.response(row.targets[:1])) for row in rows)
    assert validation_loss(step, rows)[0] == pytest.approx(-total / tokens, rel=1e-4)


def test_a_running_temperature_stays_where_it_is(dataset):
    step = step_of(dataset, create("objective", "msl", {"adaptive": True}))
    validation_loss(step, dataset.rows("valid"))
    assert step.objective.state_dict() == {"temperature": 1.0, "estimates": 0}


def figures(run, name):
    return {line["step"]: line[name] for line in read_log(run) if name in line}


class Unlearn(TokenObjective):
    """Lowers the probability of the answers: its loss falls as the cross-entropy rises."""

    Params = NoParams

    def loss(self, answers):
        return -Sft().loss(answers)[0], {}


@pytest.mark.parametrize("best_on", ["auto", "loss", "cross_entropy"])
def test_the_checkpoint_follows_what_the_objective_trains(dataset, tmp_path, monkeypatch, best_on):
    figure = "loss" if best_on == "auto" else best_on
    monkeypatch.setattr(
        registry, "create", lambda kind, *given: Unlearn() if kind == "objective" else create(kind, *given)
    )
    training = TrainingOptions(**{**TRAINING.__dict__, "best_metric": best_on, "learning_rate": 1e-3})
    options = SftOptions(model=MODEL, objective="unlearn", training=training, loss_on="response")
    results = train_supervised(dataset, tmp_path / "run", options)
    curves = {name: figures(tmp_path / "run", f"eval_{name}") for name in ("loss", "cross_entropy")}
    assert min(curves["loss"], key=curves["loss"].get) == max(curves["loss"])  # it learns to the end
    assert min(curves["cross_entropy"], key=curves["cross_entropy"].get) == min(curves["loss"])
    assert results["best_on"] == figure
    assert results["best_update"] == min(curves[figure], key=curves[figure].get)
    assert results[f"best_{figure}"] == pytest.approx(min(curves[figure].values()))


@pytest.mark.parametrize("name", ["msl", "bear", "beam-exact"])
def test_the_best_checkpoint_has_the_lowest_loss_of_its_objective(dataset, tmp_path, name):
    options = SftOptions(model=MODEL, objective=name, training=TRAINING)
    results = train_supervised(dataset, tmp_path / "run", options)
    losses = figures(tmp_path / "run", "eval_loss")
    assert results["best_on"] == "loss"
    assert results["best_loss"] == min(losses.values()) == losses[results["best_update"]]
    kept = step_of(dataset, create("objective", name), tmp_path / "run")
    assert validation_loss(kept, dataset.rows("valid"))[0] == pytest.approx(results["best_loss"], rel=1e-4)


def test_preference_objectives_have_no_loss_on_validation_rows(dataset, tmp_path):
    load_policy(MODEL, dataset).save(tmp_path / "start")
    for best_on, metric, found in [("auto", None, "metric"), ("auto", "", "cross_entropy")]:
        training = TrainingOptions(**{**TRAINING.__dict__, "best_metric": best_on, "epochs": 1})
        options = SftOptions(model=str(tmp_path / "start"), objective="dpo", training=training, metric=metric)
        results = train_supervised(dataset, tmp_path / found, options)
        assert results["best_on"] == found
        assert not figures(tmp_path / found, "eval_loss") and figures(tmp_path / found, "eval_cross_entropy")
    training = TrainingOptions(**{**TRAINING.__dict__, "best_metric": "loss"})
    with pytest.raises(UserError, match="loss of 'dpo' is not known"):
        train_supervised(dataset, tmp_path / "loss", SftOptions(str(tmp_path / "start"), "dpo", training=training))
