"""Updates on a GPU: the loss and the gradient of a CPU in float32, near ones in bfloat16."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recalign.metrics.expression import parse_expression
from recalign.models.policy import reference_policy
from recalign.plugins.registry import create
from recalign.training.offline.examples import AnswerExamples, collate
from recalign.training.offline.negatives import Negatives
from recalign.training.offline.preference_step import PreferenceExamples, PreferenceStep
from recalign.training.offline.token_step import TokenStep
from recalign.training.online.prompt_order import PromptOrder
from recalign.training.online.rank_step import RankStep
from recalign.training.online.rollout_step import RolloutStep
from tests.fake_dataset import TITLES
from tests.gpu.on_device import DEVICE, NEEDS_GPU, distance, engine_of, shake
from tests.training.updates import gradients, update

pytestmark = NEEDS_GPU


def token_step(worlds, objective, **how):
    engine = engine_of(worlds, "next", **how)
    plugin = create("objective", *objective)
    examples = AnswerExamples(engine.policy, worlds["next"].rows("train"), 1)
    batch = [replace(examples.rows[index], history=examples.rows[index].history[: 2 + index % 3]) for index in range(6)]
    examples.rows = batch
    return TokenStep(engine.policy, plugin, engine), collate(
        [examples[0, i] for i in range(6)], pad=0, all_tokens=False
    )


def preference_step(worlds, objective, **how):
    engine = engine_of(worlds, "next", **how)
    plugin, policy = create("objective", *objective), engine.policy
    reference = reference_policy(policy)
    shake(policy.model, 0.1)  # away from the reference
    negatives = Negatives(engine, plugin.params.source, plugin.params.negatives, 3)
    examples = PreferenceExamples(AnswerExamples(policy, worlds["next"].rows("train"), 1))
    return PreferenceStep(policy, plugin, engine, reference, negatives), [examples[0, index] for index in range(5)]


class _References:
    """Eight stored lists of each row."""

    def of(self, rows):
        return np.random.default_rng(0).integers(0, len(TITLES), size=(len(rows), 8, 3))


def rollout_step(worlds, objective, **how):
    engine, rows = engine_of(worlds, "list", **how), worlds["list"].rows("train")[:5]
    plugin = create("objective", *objective)
    reference = reference_policy(engine.policy)
    shake(engine.policy.model, 0.1)
    order = PromptOrder(np.arange(5), 5, seed=0)
    expression = parse_expression("ndcg").bind(engine.catalogue)
    references = _References() if plugin.needs.reference_lists else None
    step = RolloutStep(engine.policy, engine, plugin, expression, rows, order, references, reference, seed=3)
    return step, [0]


def rank_step(worlds, objective, **how):
    engine, rows = engine_of(worlds, "rank", **how), worlds["rank"].rows("train")[:3]
    plugin = create("objective", *objective)
    plugin.modules = engine.policy.attach(plugin.module_makers)
    for module in plugin.modules.values():
        shake(module, 1.0)
    expression = parse_expression("ndcg@3").bind(engine.catalogue)
    order = PromptOrder(np.arange(3), 3, seed=0)
    return RankStep(engine, plugin, expression, rows, order, reference_policy(engine.policy), seed=3), [0]


UPDATES = [
    (token_step, "sft", {}),
    (token_step, "msl", {"adaptive": True}),
    (token_step, "bear", {}),
    (token_step, "beam-exact", {}),
    (token_step, "cft", {}),
    (preference_step, "s-dpo", {}),
    (preference_step, "s-dpo", {"constrained": True}),
    (preference_step, "bear-s-dpo", {}),
    (rollout_step, "grpo", {"group_size": 4}),
    (rollout_step, "bon", {"group_size": 4}),
    (rollout_step, "blade", {"group_size": 4}),
    (rank_step, "r2rank", {"max_tokens": 5, "sets": 2, "kl_beta": 0.1}),
    (rank_step, "r2rank", {"max_tokens": 5, "through_head": True}),
    (rank_step, "list-mle", {"max_tokens": 5}),
]
NAMES = ["-".join([name, *params]) for _, name, params in UPDATES]


def updated(build, worlds, objective, **how):
    """Loss, figures and gradients of one update, on the CPU."""
    step, batch = build(worlds, objective, **how)
    loss, figures = update(step, batch)
    return loss.cpu(), figures, {name: each.float().cpu() for name, each in gradients(step.policy.model).items()}


@pytest.mark.parametrize(("build", "name", "params"), UPDATES, ids=NAMES)
@pytest.mark.parametrize("lora", [False, True])
def test_an_update_has_the_loss_and_gradient_of_a_cpu(worlds, build, name, params, lora):
    here, there = (updated(build, worlds, (name, params), device=where, lora=lora) for where in ("cpu", DEVICE))
    torch.testing.assert_close(there[0], here[0], atol=1e-4, rtol=1e-3)
    assert distance(there[2], here[2]) < 2e-3
    assert there[1].get("sampling_gap", 0.0) < 1e-3
    for figure, value in here[1].items():
        assert there[1][figure] == pytest.approx(value, abs=1e-3, rel=1e-2), figure


@pytest.mark.parametrize(("build", "name", "params"), UPDATES, ids=NAMES)
def test_an_update_in_bfloat16_is_near_that_in_float32(worlds, build, name, params):
    """What was sampled may be other lists, whose losses are compared with nothing."""
    how = {"device": DEVICE, "lora": True}
    loss, figures, found = updated(build, worlds, (name, params), dtype="bfloat16", **how)
    assert torch.isfinite(loss) and all(torch.isfinite(each).all() for each in found.values())
    assert sum(each.abs().sum() for each in found.values()) > 0
    assert figures.get("sampling_gap", 0.0) < 0.5
    if build in (token_step, preference_step):
        expected = updated(build, worlds, (name, params), **how)
        torch.testing.assert_close(loss, expected[0], atol=0.1, rtol=0.1)
        assert distance(found, expected[2]) < 0.5
