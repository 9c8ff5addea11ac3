"""The preference step: log-probabilities against plain forward passes and beam search, negatives, one update."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recalign.api import UserError
from recalign.decoding.engine import PolicyEngine
from recalign.models.policy import load_policy, reference_policy
from recalign.objectives.bear_s_dpo import BearSdpo, BearSdpoParams
from recalign.objectives.dpo import Dpo
from recalign.objectives.s_dpo import Sdpo, SdpoParams
from recalign.training.offline.examples import AnswerExamples
from recalign.training.offline.negatives import Negatives
from recalign.training.offline.preference_step import PreferenceExamples, PreferenceStep
from recalign.training.supervised import SftOptions, train_supervised
from recalign.training.training_options import TrainingOptions
from tests.fake_dataset import write_dataset
from tests.training.updates import update


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("preferences") / "data", task="next")


def lesson(dataset, objective, rows=4, epoch=0):
    policy = load_policy("builtin:tiny,hidden=16,heads=2", dataset, trainable=True)
    policy.model.eval()
    engine = PolicyEngine(policy, dataset.catalogue, exclude_history=True)
    negatives = Negatives(engine, objective.params.source, objective.params.negatives, 3)
    step = PreferenceStep(policy, objective, engine, reference_policy(policy), negatives)
    examples = PreferenceExamples(AnswerExamples(policy, dataset.rows("train"), 1))
    return step, [examples[epoch, index] for index in range(rows)]


def items_of(step, batch):
    rows = [example.row for _, example in batch]
    chosen = np.array([[row.targets[0]] for row in rows])
    return rows, np.concatenate([chosen, step.negatives.draw(rows, batch[0][0])], axis=1)


@pytest.mark.parametrize("packed", [True, False])
def test_full_log_probabilities_are_those_of_plain_forward_passes(dataset, packed):
    step, batch = lesson(dataset, Dpo(Dpo.Params(negatives=3)))
    step.tree_mask = packed
    preferences = step.preferences(batch)
    rows, items = items_of(step, batch)
    for place, row in enumerate(rows):
        prompt = step.policy.prompter.encode(row)
        for column, item in enumerate(items[place]):
            title = step.policy.titles.response([item])
            tokens = torch.from_numpy(np.concatenate([prompt, title]))[None]
            logps = step.policy.model(input_ids=tokens).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            expected = logps.gather(1, torch.from_numpy(title)[:, None]).sum()
            torch.testing.assert_close(preferences.logps[place, column], expected)
    torch.testing.assert_close(preferences.logps, preferences.reference_logps)
    assert bool(preferences.choices.sum(2).eq(torch.tensor([len(step.policy.titles.response([0]))])).all())


def test_constrained_log_probabilities_are_the_scores_of_beam_search(dataset):
    step, batch = lesson(dataset, Sdpo(SdpoParams(negatives=3, constrained=True)))
    preferences = step.preferences(batch)
    rows, items = items_of(step, batch)
    found, scores = step.engine.beam(rows, width=15, size=15)  # all but the history
    for place in range(len(rows)):
        for column, item in enumerate(items[place]):
            expected = scores[place, found[place] == int(item)][0]
            assert preferences.logps[place, column].item() == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("constrained", [True, False])
def test_thresholds_are_the_b_th_best_log_probability_in_each_place(dataset, constrained):
    step, batch = lesson(dataset, BearSdpo(BearSdpoParams(beam=2, constrained=constrained)))
    preferences = step.preferences(batch)
    assert not preferences.thresholds.requires_grad
    row, titles = batch[0][1].row, step.policy.titles
    logits = step.policy.model(input_ids=torch.from_numpy(step.policy.prompter.encode(row))[None]).logits[0, -1]
    if constrained:
        free = np.setdiff1d(np.arange(20), row.history)
        logits = logits[sorted({int(titles.paths[item][0]) for item in free})]
    expected = logits.log_softmax(-1).topk(2).values[1]
    torch.testing.assert_close(preferences.thresholds[0, :, 0], expected.expand(4))


@pytest.mark.parametrize("objective", [Dpo(), Sdpo(SdpoParams(constrained=True)), BearSdpo()])
def test_an_update_raises_the_targets_over_the_rejected_titles(dataset, objective):
    step, batch = lesson(dataset, objective)
    before, _ = update(step, batch)
    with torch.no_grad():
        for parameter in step.policy.model.parameters():
            parameter.sub_(0.05 * parameter.grad)
    after = objective.loss(step.preferences(batch))
    assert after[0].item() < before.item()
    assert after[1]["margin"] > 0


def test_all_forced_titles_give_a_loss_without_effect(tmp_path):
    dataset = write_dataset(tmp_path / "data", titles=["Ship Red", "Ship Old"], task="next", history=1, users=4)
    step, batch = lesson(dataset, Sdpo(SdpoParams(negatives=1, constrained=True)), rows=2)
    step.engine.exclude_history = False
    value, _ = update(step, batch)
    assert value.isfinite()


def options(objective, model, **params):
    training = TrainingOptions(epochs=1, batch_size=8, learning_rate=1e-3, best_metric="auto")
    return SftOptions(model=str(model), objective=objective, params=params, training=training, valid_rows=4)


def test_sft_trains_a_preference_objective_from_a_supervised_model_and_does_it_again_alike(dataset, tmp_path):
    policy = load_policy("builtin:tiny,hidden=16,heads=2", dataset)
    policy.save(tmp_path / "start")
    losses = []
    for run in ("a", "b"):
        results = train_supervised(dataset, tmp_path / run, options("s-dpo", tmp_path / "start", source="batch"))
        losses.append(results["train_loss"])
    assert losses[0] == losses[1]
    assert results["best_on"] == "metric" and results["updates"] == 3
    trained = load_policy(tmp_path / "a", dataset)
    changed = [
        not torch.equal(old, new)
        for old, new in zip(policy.model.parameters(), trained.model.parameters(), strict=True)
    ]
    assert any(changed)


def test_a_preference_objective_needs_a_supervised_model_and_learns_responses_only(dataset, tmp_path):
    with pytest.raises(UserError, match="'dpo' starts from a supervised model; builtin:tiny knows nothing yet"):
        train_supervised(dataset, tmp_path / "run", options("dpo", "builtin:tiny"))
    load_policy("builtin:tiny,hidden=16,heads=2", dataset).save(tmp_path / "start")
    with pytest.raises(UserError, match="responses only"):
        train_supervised(dataset, tmp_path / "run", replace(options("dpo", tmp_path / "start"), loss_on="all"))
    assert not (tmp_path / "run").exists()
