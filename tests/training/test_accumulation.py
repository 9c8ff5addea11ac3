"""Loss and gradient of an update do not depend on how its rows are cut: micro-batches, passes, processes."""

import importlib.util
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel
from transformers import Trainer, TrainingArguments

from recalign.api import NoParams, PolicyBatch, PreferenceObjective, RolloutObjective, TokenObjective, UserError
from recalign.data.dataset import PreparedDataset
from recalign.decoding.engine import PolicyEngine
from recalign.metrics.expression import parse_expression
from recalign.models.policy import load_policy, reference_policy
from recalign.objectives.grpo import Grpo
from recalign.objectives.sft import Sft
from recalign.plugins.registry import create
from recalign.training.accumulation import Accumulation, weighed_loss
from recalign.training.offline.setups import preference_setup, token_setup
from recalign.training.online.prompt_order import PromptOrder
from recalign.training.online.rollout_step import RolloutStep
from recalign.training.online.rollouts import make_rollout
from recalign.training.processes import process
from recalign.training.validation import Validation
from tests.fake_dataset import write_dataset
from tests.training.updates import gradients, update

ROWS = 6
# One token, two, seven: in a mean of means over rows the first would weigh seven times what it does in one batch.
TITLES = ["A", "B", "Blue Sky", "Blue Sea", "Old Man and the Big Sea", "Old Man and the Small Lake of Time"]
TITLES += ["C", "Red Ship", "Red Sky at Night and Day", "D", "E", "F"]
TOKEN = [
    ("sft", {}),
    ("msl", {}),
    ("msl", {"count_forced": False}),
    ("msl", {"adaptive": True}),
    ("bear", {"beam": 2, "temperature": 0.5}),
    ("bear", {"beam": 2, "normalise": "tokens"}),
    ("bear", {"beam": 2, "constrained": False}),
    ("bear", {"beam": 2, "temperature": 0.5, "stop_gradient": False}),
    ("beam-exact", {"beam": 2}),
    ("beam-exact", {"beam": 2, "normalise": "tokens"}),
    ("cft", {}),
    ("cft", {"alpha": 0.0}),
    ("igd", {}),
    ("igd", {"beta": 0.0}),
]
PREFERENCE = [
    ("dpo", {"negatives": 2}),
    ("dmpo", {}),
    ("s-dpo", {}),
    ("bear-s-dpo", {"beam": 2}),
    ("sprec", {"source": "self", "negatives": 2}),
]
ROLLOUT = [
    ("grpo", {"kl_beta": 0.1}),
    ("grpo", {"length_normalise": False, "scale": "none"}),
    ("bon", {"reference_lists": 2}),
    ("blade", {"reference_lists": 2}),
    ("rere", {}),
    ("list-dpo", {}),
    ("rloo", {}),
]
CUTS = [[1, 5], [2, 3, 1], [1] * ROWS]


def name_of(case):
    return "-".join(map(str, [case[0], *(f"{key}={value}" for key, value in case[1].items())]))


def made(case):
    """An objective by name; `rloo` is the example plugin, which need not be installed."""
    name, params = case
    if name != "rloo":
        return create("objective", name, params)
    file = Path(__file__).parents[2] / "plugins" / "recalign-example-objective" / "recalign_rloo.py"
    spec = importlib.util.spec_from_file_location("recalign_rloo", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Rloo(module.Rloo.Params(**params))


def policy_of(dataset):
    policy = load_policy("builtin:tiny,hidden=16,heads=2", dataset, trainable=True)
    policy.model.eval()
    return policy


def shake(model):
    """Move a policy away from its reference."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)


class Uneven:
    """Rejected titles, of which each row has another number; one row has none."""

    def __init__(self, negatives):
        self.negatives = negatives

    def draw(self, rows, epoch):
        drawn = self.negatives.draw(rows, epoch)
        for place, row in enumerate(rows):
            drawn[place, row.index % (drawn.shape[1] + 1) :] = -1
        return drawn


def data_lesson(dataset, objective):
    policy = policy_of(dataset)
    validation = Validation(PolicyEngine(policy, dataset.catalogue, exclude_history=True), dataset.rows("valid"))
    rows = dataset.rows("train")[:ROWS]
    if isinstance(objective, PreferenceObjective):
        setup = preference_setup(objective, validation, rows, seed=0)
        setup.step.negatives = Uneven(setup.step.negatives)
    else:
        setup = token_setup(objective, validation, rows, loss_on="response")
    shake(policy.model)
    return setup


def batches(setup, sizes):
    ends = np.cumsum(sizes)
    return [
        setup.collate([setup.examples[0, index] for index in range(end - size, end)])
        for end, size in zip(ends, sizes, strict=True)
    ]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("accumulation") / "data"
    return write_dataset(folder, titles=TITLES, task="next", users=8, history=3)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert any((value != 0).any() for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("case", [*TOKEN, *PREFERENCE], ids=name_of)
def test_an_update_is_the_same_however_its_rows_are_cut(dataset, case):
    whole = data_lesson(dataset, made(case))
    loss, _ = update(whole.step, *batches(whole, [ROWS]))
    expected = gradients(whole.step.policy.model)
    for cut in CUTS:
        setup = data_lesson(dataset, made(case))
        parts, _ = update(setup.step, *batches(setup, cut))
        assert parts.item() == pytest.approx(loss.item(), rel=1e-5)
        assert_same(gradients(setup.step.policy.model), expected)


@pytest.mark.parametrize("case", [*TOKEN, *PREFERENCE], ids=name_of)
def test_an_update_is_the_same_within_any_token_budget(dataset, case, monkeypatch):
    whole = data_lesson(dataset, made(case))
    loss, figures = update(whole.step, *batches(whole, [ROWS]))
    expected = gradients(whole.step.policy.model)
    longest = max(whole.examples.length_of(index) for index in range(ROWS))
    for budget, sizes in ((10**6, [ROWS]), (2 * longest, None), (1, [1] * ROWS)):
        setup = data_lesson(dataset, made(case))
        setup.step.token_budget, passes = budget, []
        score, of = ("answers", "examples") if isinstance(setup.step.objective, TokenObjective) else ("_scored", None)
        pass_of = getattr(setup.step, score)

        def watched(*arguments, pass_of=pass_of, of=of, passes=passes):
            passes.append(len(getattr(arguments[-1], of) if of else arguments[0]))
            return pass_of(*arguments)

        monkeypatch.setattr(setup.step, score, watched)
        parts, told = update(setup.step, *batches(setup, [ROWS]))
        surveyed = setup.step.objective.needs.survey if of and len(passes) > 1 else False
        assert sum(passes) == ROWS * (1 + surveyed)
        assert sizes is None or passes == sizes * (1 + surveyed)
        assert parts.item() == pytest.approx(loss.item(), rel=1e-5)
        assert told.keys() == figures.keys()
        assert_same(gradients(setup.step.policy.model), expected)


@pytest.mark.parametrize("case", [*TOKEN, *PREFERENCE], ids=name_of)
def test_an_update_of_one_batch_is_the_objectives_own_loss_and_gradient(dataset, case):
    setup = data_lesson(dataset, made(case))
    (batch,) = batches(setup, [ROWS])
    loss, _ = update(setup.step, batch)
    found = gradients(setup.step.policy.model)
    step = setup.step
    if isinstance(step.objective, TokenObjective):
        answers = step.answers(step.policy.model, batch)
    else:
        answers = step.preferences(batch)
    value, _ = step.objective.loss(answers)
    value.backward()
    assert loss.item() == pytest.approx(value.item(), rel=1e-6)
    assert_same(found, gradients(step.policy.model))


def rollout_step(dataset, objective, budget):
    policy = policy_of(dataset)
    engine = PolicyEngine(policy, dataset.catalogue, exclude_history=True)
    reference = reference_policy(policy)
    shake(policy.model)
    step = RolloutStep(
        policy,
        engine,
        objective,
        parse_expression("ndcg").bind(dataset.catalogue),
        dataset.rows("train"),
        PromptOrder(np.arange(ROWS), ROWS, 0, process()[1]),
        None,
        reference,
        token_budget=budget,
    )
    references = objective.needs.reference_lists
    drawn = np.random.default_rng(0).integers(len(TITLES), size=(ROWS, references, 1)) if references else None

    def roll_out(number):
        rank, processes = process()
        indices = step.prompts.at(number)[rank::processes]
        rows = [step.rows[int(index)] for index in indices]
        lists = None if drawn is None else drawn[indices]
        return make_rollout(engine, rows, objective, step.expression, lists, list_length=1, seed=0, step=number)

    step._roll_out = roll_out  # stored reference lists are not what is tested here
    return step


@pytest.mark.parametrize("case", ROLLOUT, ids=name_of)
def test_a_rollout_gives_the_same_update_in_any_passes(dataset, case):
    case = (case[0], {"group_size": 4, **case[1]})
    whole = rollout_step(dataset, made(case), 100_000)
    loss, figures = update(whole, [0])
    expected = gradients(whole.policy.model)
    for budget in (60, 1):
        step = rollout_step(dataset, made(case), budget)
        parts, smaller = update(step, [0])
        assert smaller["pass_tokens"] < figures["pass_tokens"]
        assert parts.item() == pytest.approx(loss.item(), rel=1e-4, abs=1e-6)
        assert_same(gradients(step.policy.model), expected)


def test_a_loss_over_tokens_is_weighed_by_tokens(dataset):
    """As DAPO divides: the objective says so by `weight`."""

    class PerToken(Grpo):
        def loss(self, batch):
            gain = torch.exp(batch.logps - batch.old_logps) * batch.advantages * batch.mask
            return -gain.sum() / self.weight(batch), {}

        def weight(self, batch: PolicyBatch):
            return batch.mask.sum()

    whole, parts = (rollout_step(dataset, PerToken(PerToken.Params(group_size=4)), budget) for budget in (100_000, 60))
    assert update(whole, [0])[0].item() == pytest.approx(update(parts, [0])[0].item(), abs=1e-6)
    assert_same(gradients(parts.policy.model), gradients(whole.policy.model))


def test_rows_of_one_and_nine_tokens_weigh_as_many_tokens():
    weights = torch.nn.Parameter(torch.zeros(10))
    model = torch.nn.ParameterList([weights])
    accumulation = Accumulation(model)
    for part in (slice(0, 1), slice(1, 10)):
        values = weights[part]
        accumulation.add(values.mean(), len(values))
    assert accumulation.finish().item() == 0.0
    torch.testing.assert_close(weights.grad, torch.full((10,), 0.1))


def test_accumulated_tokens_give_the_gradient_of_transformers_with_items_in_batch(dataset, tmp_path):
    """The outside oracle: its Trainer counts the tokens of all accumulated batches before it divides."""
    setup = data_lesson(dataset, Sft())
    update(setup.step, *batches(setup, CUTS[1]))
    found = gradients(setup.step.policy.model)
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none", gradient_accumulation_steps=3)
    trainer = Trainer(setup.step.policy.model, arguments)
    trainer.current_gradient_accumulation_steps = 3
    inputs = []
    for index in range(ROWS):
        example = setup.examples[0, index]
        labels = torch.from_numpy(example.tokens.astype(np.int64))[None].clone()
        tokens = labels.clone()
        labels[:, : example.prompt] = -100
        inputs.append({"input_ids": tokens, "labels": labels})
    items = sum((batch["labels"] != -100).sum() for batch in inputs)
    for batch in inputs:
        trainer.training_step(trainer.model, batch, items)
    assert_same(gradients(setup.step.policy.model), found)


def test_a_batch_without_weight_changes_nothing():
    weights = torch.nn.Parameter(torch.ones(2))
    accumulation = Accumulation(torch.nn.ParameterList([weights]))
    accumulation.add(0.0 * weights.sum(), 0)
    accumulation.add(weights.square().mean(), 2)
    assert accumulation.finish().item() == 1.0
    assert weights.grad.tolist() == [1.0, 1.0]
    weights.grad = None
    accumulation.add(0.0 * weights.sum(), 0)
    assert accumulation.finish().item() == 0.0
    assert weights.grad.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), -1.0])
def test_a_weight_that_is_none_is_the_plugins_fault(weight):
    class Odd(TokenObjective):
        Params = NoParams

        def loss(self, answers):
            return answers.sum(), {}

        def weight(self, answers):
            return weight

    with pytest.raises(UserError, match=f"The objective 'odd' .*returned {weight} in weight"):
        weighed_loss(Odd(name="odd"), torch.ones(1, requires_grad=True))


def in_one_of_two(rank, port, data, out):
    """A process of two: every objective's gradient, each process having its own rows, in two micro-batches."""
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    dataset, found = PreparedDataset(data), {}
    for case in [*TOKEN, *PREFERENCE]:
        setup = data_lesson(dataset, made(case))
        step = setup.step
        model = DistributedDataParallel(step.policy.model) if step.runs_wrapped else step.policy.model
        mine = batches(setup, [1, 3, 1, 1])[2 * rank :][:2]
        step.token_budget = (40, 10**6)[rank]  # one of them cuts its batches
        accumulation = Accumulation(step.policy.model, averaged=step.runs_wrapped)
        step.begin(mine)
        if step.runs_wrapped:
            with model.no_sync():
                step.accumulate(model, mine[0], accumulation)
        else:
            step.accumulate(model, mine[0], accumulation)
        step.accumulate(model, mine[1], accumulation)
        found[name_of(case)] = accumulation.finish(), gradients(step.policy.model)
    for case in ROLLOUT:
        step = rollout_step(dataset, made((case[0], {"group_size": 4, **case[1]})), 60)
        found[name_of(case)] = update(step, [0])[0], gradients(step.policy.model)
    torch.save(found, f"{out}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_make_the_update_of_one(dataset, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    from tests.training import test_accumulation as here  # by a name that the processes can import

    multiprocessing.spawn(here.in_one_of_two, (port, str(dataset.path), str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for case in [*TOKEN, *PREFERENCE, *ROLLOUT]:
        objective = made(case)
        if isinstance(objective, RolloutObjective):
            step = rollout_step(dataset, made((case[0], {"group_size": 4, **case[1]})), 100_000)
            loss, _ = update(step, [0])
        else:
            setup = data_lesson(dataset, objective)
            step = setup.step
            loss, _ = update(step, *batches(setup, [ROWS]))
        expected = gradients(step.policy.model)
        for value, gradient in (first[name_of(case)], second[name_of(case)]):
            assert value.item() == pytest.approx(loss.item(), rel=1e-4, abs=1e-6), case
            assert_same(gradient, expected)
