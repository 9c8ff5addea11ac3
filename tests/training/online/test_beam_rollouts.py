"""Rollouts by beam search: ranked, distinct titles with their ranks and scores handed on; alignment on them learns."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recalign.api import Metric, UserError
from recalign.decoding.engine import PolicyEngine
from recalign.metrics.expression import MetricExpression, Term, parse_expression
from recalign.models.policy import load_policy
from recalign.plugins.registry import create
from recalign.training.logprobs.completions import completion_logps
from recalign.training.online import rollout_training
from recalign.training.online.rollout_training import RolloutOptions, align_policy
from recalign.training.online.rollouts import check_groups, make_rollout
from recalign.training.trainer import read_log
from recalign.training.training_options import TrainingOptions
from tests.fake_dataset import write_dataset


@pytest.fixture(scope="module", params=["title", "atomic"])
def world(request, tmp_path_factory):
    dataset = write_dataset(tmp_path_factory.mktemp("world") / "data", identifier=request.param, task="next")
    policy = load_policy("builtin:tiny,hidden=32", dataset, trainable=True)
    return dataset, PolicyEngine(policy, dataset.catalogue, exclude_history=True)


def roll_out(world, expression="ranking", **params):
    dataset, engine = world
    rows = [dataset.rows("train")[index] for index in range(3)]
    if isinstance(expression, str):
        expression = parse_expression(expression)
    expression = expression.bind(dataset.catalogue)
    objective = create("objective", "rere", {"group_size": 5, **params})
    return make_rollout(engine, rows, objective, expression, None, list_length=1, seed=5, step=0)


def test_groups_are_the_titles_of_the_beam_in_its_order(world):
    rollout = roll_out(world)
    items, scores = world[1].beam(rollout.rows, width=5, size=5)
    assert rollout.groups.ranked and rollout.all_groups.ranked
    assert torch.equal(rollout.groups.items.squeeze(-1), items)
    assert torch.equal(rollout.groups.scores, scores)
    titles = world[1].policy.titles
    for tokens, length, item in zip(
        rollout.completions.tokens, rollout.completions.lengths, items.flatten(), strict=True
    ):
        assert tokens[:length].tolist() == titles.response([int(item)]).tolist()


def test_training_sees_the_log_probabilities_by_which_the_beam_ranked(world):
    rollout = roll_out(world)
    logps = completion_logps(world[1].policy.model, rollout.sampled).detach()
    torch.testing.assert_close(logps.sum(dim=1), rollout.groups.scores.flatten().float(), atol=1e-5, rtol=1e-5)
    assert rollout.gap(logps) < 1e-5
    assert rollout.gap(logps - 0.25) > 0.2


class Recorder(Metric):
    """Keeps what it was handed."""

    reads = frozenset({"ranks", "logps"})

    def score(self, lists):
        self.seen = lists
        return lists.ranks + lists.logps


def test_rewards_are_handed_ranks_scores_and_groups(world):
    reward = Recorder(name="recorder")
    rollout = roll_out(world, MetricExpression((Term(1.0, reward, None, {}),)))
    assert reward.seen.ranks.tolist() == [0, 1, 2, 3, 4] * 3
    assert reward.seen.groups.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    scores = rollout.groups.scores
    np.testing.assert_allclose(reward.seen.logps, scores.flatten())
    np.testing.assert_allclose(rollout.groups.rewards, scores + torch.arange(5))


def test_a_group_as_large_as_what_is_left_is_searched_and_a_larger_one_is_refused(world):
    assert roll_out(world, group_size=15).groups.items.shape == (3, 15, 1)  # 20 items, 5 in the history
    dataset, engine = world
    rows, indices = dataset.rows("train"), np.array([4, 9])
    check_groups(engine, create("objective", "rere", {"group_size": 15}), rows, indices)
    with pytest.raises(UserError, match="only 15 items may be recommended to user 'u4'") as error:
        check_groups(engine, create("objective", "rere", {"group_size": 16}), rows, indices)
    assert "group_size=15" in error.value.hint
    check_groups(engine, create("objective", "grpo", {"group_size": 16}), rows, indices)  # samples may be equal


def test_a_row_with_too_few_items_is_found_before_the_first_update(tmp_path, monkeypatch):
    monkeypatch.setattr(rollout_training, "validate_lists", None)  # not even validation has begun
    dataset = write_dataset(tmp_path / "data", identifier="atomic", task="next")
    policy = load_policy("builtin:tiny,hidden=16,heads=2", dataset, trainable=True)
    engine = PolicyEngine(policy, dataset.catalogue, exclude_history=True)
    expression = parse_expression("ranking").bind(dataset.catalogue)
    objective, training = create("objective", "rere", {"group_size": 16}), TrainingOptions(max_steps=1)
    with pytest.raises(UserError, match="A group of 16 titles is asked for"):
        align_policy(engine, dataset, objective, expression, tmp_path / "out", training, RolloutOptions(1))
    assert not (tmp_path / "out").exists()


def test_alignment_on_beams_learns_and_logs_no_entropy(tmp_path):
    dataset = write_dataset(tmp_path / "data", identifier="atomic", task="next")
    policy = load_policy("builtin:tiny,hidden=32", dataset, trainable=True)
    engine = PolicyEngine(policy, dataset.catalogue, exclude_history=True)
    training = TrainingOptions(max_steps=24, learning_rate=3e-3, eval_every=8, schedule="linear", warmup=0.0)
    expression = parse_expression("ranking").bind(dataset.catalogue)
    objective = create("objective", "rere", {"group_size": 8})
    results = align_policy(engine, dataset, objective, expression, tmp_path / "out", training, RolloutOptions(8))
    steps = [line for line in read_log(tmp_path / "out") if "loss" in line]
    found = [1 - line["zero_variance"] for line in steps]
    assert np.mean(found[-5:]) > np.mean(found[:5])
    assert results["best_reward"] > results["start_reward"]
    assert max(line["sampling_gap"] for line in steps) < 1e-4
    assert all("entropy" not in line and line["kl"] >= 0 for line in steps)


def test_ranks_reach_the_same_result_in_parts_of_any_size(tmp_path):
    def run(name, budget):
        dataset = write_dataset(tmp_path / name / "data", task="next")
        policy = load_policy("builtin:tiny,hidden=32", dataset, trainable=True)
        engine = PolicyEngine(policy, dataset.catalogue, exclude_history=True)
        training = replace(TrainingOptions(warmup=0.0), max_steps=3, learning_rate=3e-3, eval_every=3)
        expression = parse_expression("ranking").bind(dataset.catalogue)
        objective = create("objective", "rere", {"group_size": 6})
        options = RolloutOptions(4, token_budget=budget)
        align_policy(engine, dataset, objective, expression, tmp_path / name / "out", training, options)
        return policy.model.state_dict()

    whole, parts = run("whole", 16384), run("parts", 60)
    for name, value in whole.items():
        torch.testing.assert_close(value, parts[name], atol=1e-4, rtol=1e-3)
