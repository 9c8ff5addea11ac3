"""The second pass of objectives that compare answers with and without the history."""

import numpy as np
import torch

from recalign.decoding.engine import PolicyEngine
from recalign.models.policy import load_policy
from recalign.objectives.cft import Cft
from recalign.objectives.sft import Sft
from recalign.training.offline.examples import AnswerExamples, collate
from recalign.training.offline.token_step import TokenStep
from tests.fake_dataset import write_dataset
from tests.training.updates import update


def step_and_batch(tmp_path, objective):
    dataset = write_dataset(tmp_path / "data", task="next")
    policy = load_policy("builtin:tiny,hidden=16,heads=2", dataset, trainable=True)
    step = TokenStep(policy, objective, PolicyEngine(policy, dataset.catalogue, exclude_history=True))
    examples = AnswerExamples(policy, dataset.rows("train"), 1)
    batch = collate([examples[0, index] for index in range(5)], pad=policy.titles.end, all_tokens=False)
    return policy, step, batch


def test_logits_without_history_are_those_of_a_prompt_without_items(tmp_path):
    policy, step, batch = step_and_batch(tmp_path, Cft())
    answers = step.answers(policy.model, batch)
    example = batch.examples[2]
    response = example.tokens[example.prompt :].astype(np.int64)
    tokens = torch.tensor([[policy.tokenizer.bos_token_id, *response]])
    expected = policy.model(input_ids=tokens).logits[0, : len(response)]
    torch.testing.assert_close(answers.logits_without_history[answers.rows == 2], expected)
    assert answers.logits_without_history.shape == answers.logits.shape


def test_cft_trains_and_other_objectives_pay_for_no_second_pass(tmp_path):
    policy, step, batch = step_and_batch(tmp_path, Cft())
    _, figures = update(step, batch)
    assert set(figures) == {"plain_loss", "effect_loss"}
    assert all(parameter.grad is not None for parameter in policy.model.parameters())
    other = TokenStep(policy, Sft(), step.engine)
    assert other.answers(policy.model, batch).logits_without_history is None
