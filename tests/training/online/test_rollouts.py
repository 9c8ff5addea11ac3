"""Rollouts: rewards by group, credit spread over tokens, and misbehaving objectives named."""

import numpy as np
import pytest
import torch

from recalign.api import Credit, Groups, RolloutObjective, UserError
from recalign.decoding.engine import PolicyEngine
from recalign.metrics.expression import parse_expression
from recalign.models.policy import load_policy
from recalign.objectives.grpo import Grpo
from recalign.plugins.registry import create
from recalign.training.logprobs.completions import completion_logps
from recalign.training.online.rollouts import checked_credit, make_rollout, score_groups, token_advantages
from tests.fake_dataset import write_dataset


@pytest.fixture(scope="module", params=["title", "atomic"])
def world(request, tmp_path_factory):
    """A dataset, an engine with a random tiny model, and a reward."""
    dataset = write_dataset(tmp_path_factory.mktemp("world") / "data", identifier=request.param)
    policy = load_policy("builtin:tiny,hidden=32", dataset, trainable=True)
    return (
        dataset,
        PolicyEngine(policy, dataset.catalogue, exclude_history=True),
        parse_expression("ndcg").bind(dataset.catalogue),
    )


def roll_out(world, objective, step=0, count=3):
    dataset, engine, expression = world
    rows = [dataset.rows("train")[index] for index in range(count)]
    return make_rollout(engine, rows, objective, expression, None, list_length=3, seed=5, step=step)


@pytest.mark.parametrize("params", [{}, {"temperature": 0.5, "repetition_penalty": 1.2}])
def test_ratio_is_one_before_the_first_update(world, params):
    rollout = roll_out(world, create("objective", "grpo", {"group_size": 6, **params}))
    logps = completion_logps(world[1].policy.model, rollout.sampled)
    ratio = torch.exp(logps.detach() - rollout.completions.logps)
    torch.testing.assert_close(ratio, torch.ones_like(ratio), atol=1e-5, rtol=0)
    assert (rollout.completions.logps < 0).any()


def test_rewards_are_those_of_each_list_alone(world):
    dataset, _, expression = world
    rollout = roll_out(world, create("objective", "grpo", {"group_size": 4}))
    items = rollout.groups.items.numpy()
    rewards = rollout.groups.rewards.numpy()
    for prompt, row in enumerate(rollout.rows):
        for member in range(4):
            alone = score_groups(expression, items[prompt, member][None, None], [row])
            assert rewards[prompt, member] == pytest.approx(alone[0, 0])


def test_lists_hold_no_item_of_the_history_and_none_twice(world):
    rollout = roll_out(world, create("objective", "grpo", {"group_size": 8}))
    for row, lists in zip(rollout.rows, rollout.groups.items.numpy(), strict=True):
        for items in lists:
            assert len(set(items)) == 3
            assert not set(items) & set(row.history)


def test_another_step_samples_anew_and_the_same_step_repeats(world):
    objective = create("objective", "grpo", {"group_size": 8})
    first, again, other = (roll_out(world, objective, step).completions.tokens for step in (0, 0, 1))
    assert torch.equal(first, again)
    assert first.shape != other.shape or not torch.equal(first, other)


def test_a_prompts_samples_do_not_depend_on_the_other_prompts(world):
    objective = create("objective", "grpo", {"group_size": 4})
    few, many = roll_out(world, objective, count=1), roll_out(world, objective, count=3)
    assert torch.equal(few.groups.items[0], many.groups.items[0])


def test_a_value_a_completion_covers_all_its_tokens(world):
    rollout = roll_out(world, create("objective", "grpo", {"group_size": 2}), count=1)
    tokens = token_advantages(torch.tensor([[2.0, -1.0]]), rollout.completions, world[1].policy.titles)
    mask = rollout.completions.mask
    assert torch.equal(tokens[0], 2.0 * mask[0])
    assert torch.equal(tokens[1], -1.0 * mask[1])


def test_a_value_a_title_covers_its_tokens_and_what_follows_them(world):
    rollout = roll_out(world, create("objective", "grpo", {"group_size": 2}), count=1)
    titles = world[1].policy.titles
    tokens = token_advantages(torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]), rollout.completions, titles)
    for row, values in enumerate([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]):
        sizes = [len(titles.paths[item]) for item in rollout.completions.items[row]]
        after = [len(titles.separator)] * 2 + [1]
        expected = np.repeat(values, np.add(sizes, after))
        assert tokens[row, : len(expected)].tolist() == expected.tolist()
        assert not tokens[row, len(expected) :].any()


def groups(prompts=2, size=3):
    rewards = torch.rand(prompts, size, dtype=torch.float64)
    return Groups(rewards, None, torch.zeros(prompts, size, 4, dtype=torch.int64), rewards)


class Raising(Grpo):
    def credit(self, groups):
        raise ZeroDivisionError("no reward today")


class Misshapen(Grpo):
    def credit(self, groups):
        return Credit(groups.rewards[:1])


class Infinite(Grpo):
    def credit(self, groups):
        return Credit(groups.rewards / 0)


@pytest.mark.parametrize(
    ("objective", "message"),
    [(Raising, "no reward today"), (Misshapen, r"shape \[1, 3\]"), (Infinite, "not finite")],
)
def test_a_misbehaving_objective_is_named(objective: type[RolloutObjective], message):
    with pytest.raises(UserError, match=message) as error:
        checked_credit(objective(name="grpo"), groups())
    assert f"'grpo' of module {__name__}" in error.value.what
