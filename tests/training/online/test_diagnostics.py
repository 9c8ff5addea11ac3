"""Diagnostics of a rollout and their summary, worked by hand."""

import pytest
import torch

from recalign.api import Completions, Credit, Groups
from recalign.training.online.diagnostics import rollout_metrics, summarise


def test_figures_of_a_rollout_by_hand():
    rewards = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 0.5, 0.5, 1.0]], dtype=torch.float64)
    references = torch.tensor([[0.0, 0.2], [0.5, 0.1]], dtype=torch.float64)
    items = torch.tensor([[0, 1], [2, 2], [3, -1], [4, 5]] * 2)
    logps = torch.tensor([[-1.0, 0.0, -2.0], [-1.0, 0.0, 0.0]] * 4)
    completions = Completions(torch.zeros(8, 3), torch.full((8,), 3), items, logps, torch.ones(8, 3, dtype=torch.bool))
    groups = Groups(rewards, references, items.view(2, 4, 2), logps.sum(dim=1).view(2, 4))
    credit = Credit(torch.tensor([[0.0, 0.0, 0.0, 0.0], [-2.0, 1.0, 1.0, 0.0]]), {"proxy_reward": -3.0})
    assert rollout_metrics(groups, credit, completions) == {
        "reward": pytest.approx(2 / 8),
        "zero_variance": 0.5,  # the first group
        "zero_reward": 5 / 8,
        "advantage": pytest.approx(4 / 8),
        "entropy": pytest.approx(16 / 12),  # -log p summed over 12 decisions
        "validity": pytest.approx(14 / 16),
        "repeats": pytest.approx(2 / 16),
        "proxy_reward": -3.0,
        "saturation": 1 / 8,  # only 1.0 lies above its prompt's best reference reward, 0.5
    }


def test_without_reference_lists_there_is_no_saturation():
    rewards = torch.ones((1, 2), dtype=torch.float64)
    items = torch.zeros((2, 1), dtype=torch.int64)
    logps = torch.zeros(2, 1)
    completions = Completions(items, torch.ones(2), items, logps, logps == 0)
    metrics = rollout_metrics(Groups(rewards, None, items.view(1, 2, 1), logps), Credit(torch.zeros(1, 2)), completions)
    assert "saturation" not in metrics
    assert metrics["entropy"] == 0.0


def test_summary_compares_the_first_steps_with_the_last():
    log = [{"step": step, "reward": float(step)} for step in range(1, 31)] + [{"step": 30, "eval_reward": 9.0}]
    assert summarise(log) == {"reward": {"first": 3.0, "last": 28.0}}
