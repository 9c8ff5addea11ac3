"""Rank objectives as trainings: reproducible answers and orders, parts, resumption, what is trained and what is not."""

import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from recalign.api import RankCredit, UserError
from recalign.decoding.engine import PolicyEngine
from recalign.metrics.expression import parse_expression
from recalign.models.modules import MODULES_FILE, language_model_state
from recalign.models.policy import load_policy, reference_policy
from recalign.objectives.plackett_luce import order_logps
from recalign.objectives.r2rank import R2Rank
from recalign.plugins.registry import create
from recalign.training.families import family_of
from recalign.training.online import rank_step
from recalign.training.online.prompt_order import PromptOrder
from recalign.training.online.rank_rollouts import Sets, make_rankings
from recalign.training.online.rank_step import RankStep
from recalign.training.online.rollout_training import RolloutOptions
from recalign.training.trainer import read_log
from recalign.training.training_options import TrainingOptions
from tests.fake_dataset import write_dataset
from tests.training.updates import gradients, update

TRAINING = TrainingOptions(
    max_steps=6, learning_rate=3e-3, eval_every=3, schedule="constant", warmup=0.0, weight_decay=0.0, log_every=1
)
SHORT = {"max_tokens": 6}
MODEL = "builtin:tiny,hidden=16,heads=2"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("world") / "data", task="rank", list_length=6, identifier="atomic")


@pytest.fixture
def world(dataset):
    """An engine with a head that is no longer zero, and the objective that has it."""

    def build(objective="r2rank", params=None):
        policy = load_policy(MODEL, dataset, trainable=True)
        policy.model.eval()
        plugin = create("objective", objective, {**SHORT, **(params or {})})
        plugin.modules = policy.attach(plugin.module_makers)
        random = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for module in plugin.modules.values():
                for parameter in module.parameters():
                    parameter.add_(torch.randn(parameter.shape, generator=random), alpha=0.3)
        return PolicyEngine(policy, dataset.catalogue, exclude_history=False), plugin

    return build


@pytest.fixture
def run(dataset, tmp_path):
    """`run(name, ...)`: align a fresh tiny model; returns results, policy and log."""

    def align(name="out", objective="r2rank", params=None, reward="ndcg@5", training=TRAINING, model=MODEL, **options):
        policy = load_policy(model, dataset, trainable=True)
        plugin = create("objective", objective, {**SHORT, **(params or {})})
        plugin.modules = policy.attach(plugin.module_makers)
        engine = PolicyEngine(policy, dataset.catalogue, exclude_history=False)
        expression = parse_expression(reward).bind(dataset.catalogue)
        resume = options.pop("resume", False)
        options = RolloutOptions(**{"prompts_per_step": 4, **options})
        family = family_of(plugin)
        family.check(plugin, dataset, model)
        family.check_reward(plugin, expression, dataset)
        out = tmp_path / name
        results = family.align(engine, dataset, plugin, expression, out, training, options, resume=resume)
        return results, policy, read_log(out)

    return align


def rankings(engine, objective, rows, reward="ndcg@5", **options):
    expression = parse_expression(reward).bind(engine.catalogue)
    return make_rankings(engine, rows, objective, expression, **{"seed": 3, "step": 0, **options})


def test_candidates_in_another_place_get_the_same_scores_and_orders(world, dataset):
    engine, objective = world(params={"sets": 2})
    rows = dataset.rows("train")[:3]
    moved = [replace(row, candidates=row.candidates[::-1].copy()) for row in rows]
    one, other = rankings(engine, objective, rows), rankings(engine, objective, moved)
    assert torch.equal(one.answers.items, other.answers.items)
    torch.testing.assert_close(other.scores, one.scores)
    items = [
        each.sets.spread(each.sets.items)[:, None].expand(each.orders.shape).gather(-1, each.orders)
        for each in (one, other)
    ]
    assert torch.equal(*items)
    assert one.scores.std(dim=1).min() > 0


def test_orders_and_answers_do_not_depend_on_what_else_is_asked(world, dataset):
    engine, objective = world()
    rows = dataset.rows("train")[:3]
    together, alone = rankings(engine, objective, rows), rankings(engine, objective, rows[1:2])
    torch.testing.assert_close(alone.scores[0], together.scores[1])
    assert torch.equal(alone.orders[0], together.orders[1])
    assert not torch.equal(rankings(engine, objective, rows, step=1).orders, together.orders)


def test_the_reward_is_that_of_the_list_that_an_order_is(world, dataset):
    engine, objective = world(params={"orders": 3})
    rows = dataset.rows("train")[:4]
    found = rankings(engine, objective, rows, reward="ndcg@5")
    for row, orders, rewards in zip(rows, found.orders.numpy(), found.all_rankings.rewards[:, 0], strict=True):
        places = [int(np.flatnonzero(np.sort(row.candidates)[order] == row.targets[0])[0]) for order in orders]
        expected = [1 / np.log2(place + 2) if place < 5 else 0.0 for place in places]
        torch.testing.assert_close(rewards, torch.tensor(expected, dtype=torch.float64))


def test_rows_with_fewer_candidates_are_padded(world, dataset):
    engine, objective = world(params={"orders": 4, "sets": 2})
    first, second = dataset.rows("train")[:2]
    keep = np.union1d(first.targets, first.candidates[:3])
    rows = [replace(first, candidates=keep), second]
    found = rankings(engine, objective, rows)
    assert found.sets.present.sum(dim=1).tolist() == [len(keep), 6]
    assert (found.orders[:2, :, len(keep) :] >= len(keep)).all()
    alone = rankings(engine, objective, rows[:1])
    torch.testing.assert_close(found.scores[:2, : len(keep)], alone.scores)
    torch.testing.assert_close(found.all_rankings.rewards[:1], alone.all_rankings.rewards)


def test_every_score_is_that_of_the_answer_about_its_candidate(world, dataset):
    engine, objective = world(params={"sets": 2})
    rows = [replace(row, candidates=row.candidates[[3, 0, 5, 1, 4, 2]]) for row in dataset.rows("train")[:3]]
    found = rankings(engine, objective, rows)
    for number, (row, item) in enumerate(zip(found.answers.rows.tolist(), found.answers.items.tolist(), strict=True)):
        place = (found.sets.items[row] == item).nonzero()[0, 0]
        expected = objective.scores(found.answers.states[[number]])[0]
        torch.testing.assert_close(found.scores[found.sets.set_of[number], place], expected.detach())
    targets = [row.targets[0] for row in rows]
    assert found.sets.items[found.sets.gains > 0].tolist() == targets


def step_of(engine, objective, rows, **options):
    expression = parse_expression("ndcg@5").bind(engine.catalogue)
    order = PromptOrder(np.arange(len(rows)), len(rows), seed=0)
    return RankStep(engine, objective, expression, rows, order, reference_policy(engine.policy), seed=3, **options)


@pytest.mark.parametrize(
    ("objective", "params"),
    [
        ("r2rank", {"sets": 2, "kl_beta": 0.1}),
        ("r2rank", {"through_head": True}),
        ("r2rank", {"baseline": False, "state": "open"}),
        ("list-mle", {}),
        ("list-mle", {"head_only": True, "rationale": False}),
    ],
)
def test_an_update_is_the_same_however_its_sets_are_cut(world, dataset, objective, params):
    found = []
    for budget in (1, 150, 100_000):
        engine, plugin = world(objective, params)
        step = step_of(engine, plugin, dataset.rows("train")[:4], token_budget=budget)
        loss, figures = update(step, [0])
        found.append((loss, gradients(engine.policy.model), figures))
    assert found[0][2]["pass_tokens"] < found[2][2]["pass_tokens"]
    for loss, gradient, figures in found[1:]:
        torch.testing.assert_close(loss, found[0][0])
        assert gradient.keys() == found[0][1].keys()
        for name, value in gradient.items():
            torch.testing.assert_close(value, found[0][1][name], atol=2e-6, rtol=1e-4)
        assert figures["sampling_gap"] < 1e-4


def test_the_gradient_is_that_of_a_plain_pass_over_each_answer_by_itself(world, dataset):
    engine, objective = world(params={"temperature": 0.7})
    rows = dataset.rows("train")[:2]
    step = step_of(engine, objective, rows)
    update(step, [0])
    found, rollout = gradients(engine.policy.model), step.rollout
    policy, answers = engine.policy, rollout.answers
    decision = policy.prompter.questions.decision(objective.needs.answering.form)
    states, total = [], 0.0
    for number in range(len(answers.lengths)):
        row = rows[int(answers.rows[number])]
        shared, (question,) = policy.prompter.questions.encode(row, [int(answers.items[number])], answers_form())
        tokens = answers.tokens[number, : answers.lengths[number]]
        ids = torch.cat([torch.from_numpy(np.concatenate([shared, question])), tokens])
        output = policy.model(input_ids=ids[None], output_hidden_states=True)
        begin = len(shared) + len(question)
        states.append(output.hidden_states[-1][0, begin + answers.decided[number]])
        for place in answers.chosen[number].nonzero()[:, 0].tolist():
            logits = output.logits[0, begin + place - 1] / 0.7
            if place == answers.opened[number] + 1:
                logits = torch.full_like(logits, -torch.inf).index_put(
                    (torch.tensor(decision.choice),), logits[list(decision.choice)]
                )
            total = total - rollout.token_advantages[number, 0] * logits.log_softmax(dim=0)[tokens[place]]
    scores = objective.scores(torch.stack(states).detach()).view(2, 6)
    head = -(order_logps(scores, rollout.orders).sum(dim=-1) * rollout.advantages).mean()
    (head + total / 2).backward()
    expected = gradients(policy.model)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-3)


def answers_form():
    return create("objective", "r2rank").needs.answering.form


@pytest.mark.parametrize(("objective", "params"), [("r2rank", {}), ("list-mle", {"top": 1})])
def test_head_only_leaves_the_model_as_it_is_bit_for_bit(run, dataset, objective, params):
    before = language_model_state(load_policy(MODEL, dataset).model)
    _, policy, log = run(objective=objective, params={**params, "head_only": True})
    after = language_model_state(policy.model)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert policy.model.modules_beside["ranking_head"][2].weight.abs().max() > 0
    assert "kl" not in log[0]


def test_joint_training_moves_both(run, dataset):
    before = language_model_state(load_policy(MODEL, dataset).model)
    _, policy, log = run()
    after = language_model_state(policy.model)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert policy.model.modules_beside["ranking_head"][2].weight.abs().max() > 0
    assert log[0]["order_logp"] == pytest.approx(-np.log(720), abs=1e-4)
    assert log[0]["spread"] == 0.0
    assert log[0]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert {"ranked", "tokens", "format_failures", "recommended", "entropy", "zero_variance"} <= log[0].keys()


def test_a_constant_reward_moves_nothing(run, dataset):
    """Every order of the candidates is valid: validity is 1."""
    before = language_model_state(load_policy(MODEL, dataset).model)
    _, policy, log = run(reward="validity")
    assert all(torch.equal(value, before[name]) for name, value in language_model_state(policy.model).items())
    assert {line["zero_variance"] for line in log if "reward" in line} == {1.0}


@pytest.mark.parametrize("per_rollout", [1, 2])
def test_an_interrupted_run_ends_where_the_uninterrupted_one_does(run, monkeypatch, per_rollout):
    options = {"training": replace(TRAINING, max_steps=6, eval_every=2), "updates_per_rollout": per_rollout}
    expected, whole, log = run("whole", **options)
    accumulate = RankStep.accumulate

    def interrupted(self, model, batch, update):
        if int(batch[0]) == 3:
            signal.raise_signal(signal.SIGINT)
        return accumulate(self, model, batch, update)

    monkeypatch.setattr(rank_step.RankStep, "accumulate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("cut", **options)
    monkeypatch.setattr(rank_step.RankStep, "accumulate", accumulate)
    results, resumed, log_resumed = run("cut", resume=True, **options)
    assert results["best_reward"] == expected["best_reward"]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
    assert [line["reward"] for line in log_resumed if "reward" in line] == [
        line["reward"] for line in log if "reward" in line
    ]


def test_the_head_is_saved_and_another_objective_goes_on_with_it(run, tmp_path):
    _, policy, _ = run("first", objective="list-mle")
    policy.save(tmp_path / "model")
    stored = load_file(tmp_path / "model" / MODULES_FILE)
    assert {name for name in stored if name.startswith("ranking_head.")} == set(stored) != set()
    _, again, log = run("second", model=str(tmp_path / "model"))
    assert log[0]["spread"] > 0
    assert again.answering.max_tokens == 6 and again.answering.form.rationale


def test_without_a_rationale_answers_are_decisions(run):
    _, policy, log = run(params={"rationale": False})
    longest = policy.prompter.questions.decision(policy.answering.form).longest
    assert log[0]["tokens"] <= longest
    assert not policy.answering.form.rationale


def test_list_mle_learns_who_stands_first(run):
    training = replace(TRAINING, max_steps=40, eval_every=40, learning_rate=1e-2)
    _, _, log = run(objective="list-mle", params={"rationale": False, "top": 1}, training=training, prompts_per_step=12)
    losses = [line["loss"] for line in log if "loss" in line]
    assert losses[0] == pytest.approx(np.log(6), abs=1e-4)
    assert np.mean(losses[-5:]) < 0.8 * losses[0]
    assert np.mean([line["leads"] for line in log[-6:] if "leads" in line]) > 0.4


def test_a_composite_reward_drives_it(run):
    results, _, _ = run(reward="ndcg@5 - 0.1*popularity")
    assert np.isfinite(results["best_reward"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward": "ndcg@7"}, "looks at 7 positions, and the lists have 6"),
        ({"reward": "ranking"}, "orders candidates"),
        ({"prompts_per_step": 1}, "nothing that a response is compared with"),
        ({"rows": 1}, "nothing that a response is compared with"),
    ],
)
def test_what_does_not_fit_is_refused(run, options, message):
    with pytest.raises(UserError, match=message):
        run(**options)


def test_one_row_an_update_is_fine_where_sets_are_compared(run):
    results, _, _ = run(prompts_per_step=1, params={"sets": 2}, training=replace(TRAINING, max_steps=1))
    assert results["updates"] == 1


class Wrong(R2Rank):
    """Whose parts can be broken one by one."""

    broken = ""

    def orders(self, scores, gains, noise, present):
        orders = super().orders(scores, gains, noise, present)
        return orders * 0 if self.broken == "orders" else orders

    def credit(self, rankings):
        credit = super().credit(rankings)
        return RankCredit(credit.orders[:1] * 0, credit.responses) if self.broken == "credit" else credit


@pytest.mark.parametrize(
    ("broken", "message"), [("orders", "no order of the candidates"), ("credit", "orders of shape")]
)
def test_a_misbehaving_objective_is_named(world, dataset, broken, message):
    engine, objective = world()
    wrong = Wrong(objective.params, name="mine")
    wrong.modules, wrong.broken = objective.modules, broken
    with pytest.raises(UserError, match=f"mine.*{message}"):
        rankings(engine, wrong, dataset.rows("train")[:2])


def test_sets_lie_row_by_row_and_answers_by_candidate(dataset):
    rows = dataset.rows("train")[:2]
    sets = Sets.of([replace(rows[0], candidates=rows[0].candidates[:2]), rows[1]], group_size=2)
    assert sets.set_of[:4].tolist() == [0, 1, 0, 1] and sets.column[:4].tolist() == [0, 0, 1, 1]
    assert sets.part(torch.tensor([1, 3])).answers.tolist() == [1, 3, 5, 7, 9, 11, 13, 15]
    assert sets.part(torch.tensor([1])).grid(torch.tensor([5.0, 6.0])).tolist() == [[5.0, 6.0, 0, 0, 0, 0]]
