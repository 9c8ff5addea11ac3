"""Alignment end to end on a tiny world: it learns, it bounds memory without changing the result, it resumes exactly."""

import json
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from recalign.api import Metric, UserError
from recalign.decoding.engine import PolicyEngine
from recalign.metrics.expression import MetricExpression, Term, parse_expression
from recalign.models import hardware
from recalign.models.lora import LoraOptions
from recalign.models.policy import load_policy
from recalign.objectives.grpo import Grpo
from recalign.plugins.registry import create
from recalign.training.online import rollout_step
from recalign.training.online.prompt_order import PromptOrder, choose_prompts
from recalign.training.online.rollout_training import RolloutOptions, align_policy
from recalign.training.trainer import read_log
from recalign.training.training_options import TrainingOptions
from tests.fake_dataset import write_dataset

TRAINING = TrainingOptions(max_steps=8, learning_rate=3e-3, eval_every=4, schedule="linear", warmup=0.0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("world") / "data")


@pytest.fixture
def run(dataset, tmp_path):
    """`run(name, ...)`: align a fresh tiny model; returns results, weights and log."""

    def align(name="out", objective="blade", params=None, reward="ndcg", training=TRAINING, policy=None, **options):
        policy = policy or load_policy("builtin:tiny,hidden=32", dataset, trainable=True)
        engine = PolicyEngine(policy, dataset.catalogue, exclude_history=True)
        plugin = create("objective", objective, {"group_size": 6, **(params or {})})
        expression = parse_expression(reward).bind(dataset.catalogue) if isinstance(reward, str) else reward
        resume = options.pop("resume", False)
        options = RolloutOptions(**{"prompts_per_step": 4, **options})
        out = tmp_path / name
        results = align_policy(engine, dataset, plugin, expression, out, training, options, resume=resume)
        weights = {name: value.clone() for name, value in policy.model.state_dict().items()}
        return results, weights, read_log(tmp_path / name)

    return align


FEW = {"reference_lists": 8}


@pytest.mark.parametrize(("objective", "params"), [("grpo", {}), ("bon", FEW), ("blade", FEW)])
def test_the_reward_rises(run, objective, params):
    training = replace(TRAINING, max_steps=24, eval_every=8)
    results, _, log = run(objective=objective, params=params, training=training)
    rewards = [line["reward"] for line in log if "reward" in line]
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5]) + 0.15
    assert results["best_reward"] > results["start_reward"]


def test_every_step_logs_the_diagnostics(run, tmp_path):
    results, _, log = run(params=FEW)
    steps = [line for line in log if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 9))
    wanted = {"reward", "zero_variance", "saturation", "zero_reward", "advantage", "entropy", "validity", "repeats"}
    assert all(wanted <= line.keys() for line in steps)
    assert all(line["validity"] == 1.0 and line["repeats"] == 0.0 for line in steps)
    assert max(line["sampling_gap"] for line in steps) < 1e-4
    assert steps[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert steps[4]["kl"] > 0
    assert results["diagnostics"]["reward"].keys() == {"first", "last"}
    assert results["memory"] == {name: max(line[name] for line in steps) for name in ("peak_memory_mb", "pass_tokens")}
    assert 0 < results["memory"]["pass_tokens"] <= 16384
    assert results["trie"]["titles"] == 20
    assert (tmp_path / "out" / "curves.png").stat().st_size > 1000
    json.dumps(results, allow_nan=False)


def test_the_token_budget_changes_memory_and_not_the_result(run):
    _, whole, _ = run("whole", params=FEW)
    _, parts, _ = run("parts", params=FEW, token_budget=60)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, atol=2e-4, rtol=0)


def test_references_are_shared_between_rewards_and_objectives(run):
    first, _, _ = run("first", params=FEW, reward="ndcg")
    second, _, _ = run("second", params=FEW, reward="recall@2")
    third, _, _ = run("third", objective="bon", params=FEW, reward="ndcg - 0.5*mgu")
    assert first["references_sampled"] == 24
    assert second["references_sampled"] == third["references_sampled"] == 0


@pytest.mark.parametrize("per_rollout", [1, 3])
def test_an_interrupted_run_ends_where_the_uninterrupted_one_does(run, monkeypatch, per_rollout):
    options = {"training": replace(TRAINING, max_steps=9, eval_every=3), "updates_per_rollout": per_rollout}
    expected, weights, log = run("whole", params=FEW, **options)
    accumulate = rollout_step.RolloutStep.accumulate

    def interrupted(self, model, batch, update):
        if int(batch[0]) == 4:
            signal.raise_signal(signal.SIGINT)
        return accumulate(self, model, batch, update)

    monkeypatch.setattr(rollout_step.RolloutStep, "accumulate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("cut", params=FEW, **options)
    monkeypatch.setattr(rollout_step.RolloutStep, "accumulate", accumulate)
    results, resumed, log_resumed = run("cut", params=FEW, resume=True, **options)
    assert results["best_reward"] == expected["best_reward"]
    for name, value in weights.items():
        assert torch.equal(resumed[name], value), name
    rewards = [(line["step"], line["reward"]) for line in log if "reward" in line]
    assert [(line["step"], line["reward"]) for line in log_resumed if "reward" in line] == rewards


@pytest.mark.parametrize("per_rollout", [1, 2])
def test_without_a_number_of_updates_it_validates_and_measures_the_kl_once_an_epoch(run, per_rollout):
    training = replace(TRAINING, max_steps=0, epochs=2.0, eval_every=0)
    _, _, log = run(objective="grpo", training=training, updates_per_rollout=per_rollout)
    steps = [line["step"] for line in log if "loss" in line]
    epoch = len(steps) // 2
    assert [line["step"] for line in log if "eval_reward" in line] == [epoch, 2 * epoch]
    assert [line["step"] for line in log if "kl" in line] == [1, 1 + epoch]


def test_a_negative_number_of_updates_between_validations_is_refused():
    with pytest.raises(UserError, match="eval_every is -1"):
        replace(TRAINING, eval_every=-1)


def test_several_updates_on_one_rollout_move_the_ratio(run):
    _, _, log = run(objective="grpo", updates_per_rollout=4)
    sampled = [line["step"] for line in log if "reward" in line]
    assert sampled == [1, 5]
    assert log[0]["clipped"] == 0.0
    assert max(line["clipped"] for line in log if "clipped" in line) > 0.0


@pytest.mark.parametrize("token_budget", [60, 100_000])
def test_the_reference_is_asked_once_a_rollout(run, monkeypatch, token_budget):
    real, asked, handed = rollout_step.completion_logps, [], []

    def counted(model, part, **options):
        asked.append(0 if torch.is_grad_enabled() else len(part))
        return real(model, part, **options)

    class Spy(Grpo):
        def loss(self, batch):
            handed.append(batch.reference_logps)
            return super().loss(batch)

    monkeypatch.setattr(rollout_step, "completion_logps", counted)
    monkeypatch.setitem(globals(), "create", lambda _, name, params: Spy(Spy.Params(**params)))
    training = replace(TRAINING, max_steps=4)
    params = {"kl_beta": 0.1, "group_size": 6}
    _, _, log = run(params=params, training=training, updates_per_rollout=2, token_budget=token_budget)
    assert sum(asked) == 2 * 4 * 6  # of four updates on two rollouts
    parts = len(handed) // 4
    assert parts == 1 if token_budget > 60 else parts > 1
    for rollout in (handed[: 2 * parts], handed[2 * parts :]):
        for first, again in zip(rollout[:parts], rollout[parts:], strict=True):
            assert torch.equal(first, again) and (first != 0).any()
    assert ["seconds_reference" in line for line in log if "loss" in line] == [True, False, True, False]


def test_lora_trains_the_adapter_alone_and_measures_kl_to_the_base(run, dataset, tmp_path):
    load_policy("builtin:tiny,hidden=32", dataset).save(tmp_path / "base")
    policy = load_policy(tmp_path / "base", dataset, lora=LoraOptions(rank=4), trainable=True)
    before = {name: value.clone() for name, value in policy.model.state_dict().items()}
    _, after, log = run(objective="grpo", params={"kl_beta": 0.01}, policy=policy)
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed
    assert all("lora_" in name for name in changed)
    steps = [line for line in log if "kl" in line]
    assert len(steps) == 8
    assert steps[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert steps[-1]["kl"] > 0


class Broken(Metric):
    """Returns whatever it is told."""

    takes_cutoff = False
    value = None

    def score(self, lists):
        return self.value(lists)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda lists: np.full(len(lists), np.nan), "returned nan for user 'u"),
        (lambda lists: np.zeros(len(lists) + 1), "one number a list|shape"),
        (lambda lists: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_misbehaving_reward_stops_the_run_with_its_name(run, dataset, value, message):
    reward = Broken(name="broken")
    reward.value = value
    with pytest.raises(UserError, match=message) as error:
        run(objective="grpo", reward=MetricExpression((Term(1.0, reward, None, {}),)).bind(dataset.catalogue))
    assert "'broken'" in error.value.what


class Lost(Grpo):
    def loss(self, batch):
        raise RuntimeError("lost")


class Detached(Grpo):
    def loss(self, batch):
        return torch.zeros(()), {}


@pytest.mark.parametrize(
    ("objective", "said"), [(Lost, "raised RuntimeError in loss: lost"), (Detached, "returned no scalar that depends")]
)
def test_an_objective_whose_loss_misbehaves_is_named(run, monkeypatch, objective, said):
    monkeypatch.setitem(globals(), "create", lambda *_: objective(name="mine"))
    with pytest.raises(UserError, match=f"The objective 'mine' of module {__name__} {said}"):
        run(objective="mine")


def test_prompts_visit_every_row_once_an_epoch_in_another_order():
    prompts = PromptOrder(np.arange(10, 20), per_step=4, seed=1)
    epochs = [[prompts.at(3 * epoch + step).tolist() for step in range(3)] for epoch in range(2)]
    for epoch in epochs:
        assert [len(step) for step in epoch] == [4, 4, 2]
        assert sorted(sum(epoch, [])) == list(range(10, 20))
    assert epochs[0] != epochs[1]
    assert prompts.asked(2).tolist() == sorted(epochs[0][0] + epochs[0][1])
    assert prompts.asked(7).tolist() == list(range(10, 20))


def test_rows_without_a_relevant_target_are_left_out_and_counted(dataset):
    rows = dataset.rows("train")
    expression = parse_expression("ndcg").bind(dataset.catalogue)
    relevant = [row.index for row in rows if len(row.relevant)]
    chosen, left_out = choose_prompts(rows, expression, None, 0)
    assert chosen.tolist() == relevant
    assert left_out == len(rows) - len(relevant)
    some, _ = choose_prompts(rows, expression, 5, 0)
    assert len(some) == 5
    assert set(some) <= set(relevant)
    assert not np.array_equal(some, choose_prompts(rows, expression, 5, 1)[0])


def test_bfloat16_is_mixed_into_all_passes_of_an_update(run, dataset, monkeypatch):
    """Of sampling, and of log-probabilities, which run decoder and head apart; weights stay float32, and all move."""
    monkeypatch.setattr(hardware, "mixes_bfloat16", lambda *_: True)
    policy = load_policy("builtin:tiny,hidden=32", dataset, trainable=True)
    before = {name: value.clone() for name, value in policy.model.named_parameters()}
    passes = set()
    for linear in (each for each in policy.model.modules() if isinstance(each, torch.nn.Linear)):
        linear.register_forward_hook(lambda _, __, out: passes.add((torch.is_grad_enabled(), out.dtype)))
    _, weights, log = run(objective="grpo", policy=policy, training=replace(TRAINING, max_steps=3, eval_every=3))
    assert {(True, torch.bfloat16), (False, torch.bfloat16)} <= passes
    assert (True, torch.float32) not in passes
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert all(not torch.equal(weights[name], value) for name, value in before.items())
    assert 0 < max(line["sampling_gap"] for line in log if "sampling_gap" in line) < 0.05
