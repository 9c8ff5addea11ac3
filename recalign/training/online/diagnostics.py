"""What an alignment reports about itself: figures of every step, their summary, and the curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recalign.api import first_positions
from recalign.objectives.policy_gradient import TIE, settle_ties, settle_with_references, zero_variance

if TYPE_CHECKING:
    from recalign.api import Completions, Credit, Groups
    from recalign.training.online.rank_rollouts import RankRollout

SUMMARISED = (
    "reward",
    "zero_variance",
    "saturation",
    "zero_reward",
    "advantage",
    "kl",
    "entropy",
    "validity",
    "repeats",
    "ranked",
    "format_failures",
    "tokens",
    "sampling_gap",
)
"""Figures whose first and last values the run reports."""
CURVES = "curves.png"
WINDOW = 5
"""Steps over which a summary averages: one step of 16 prompts is noisy."""


def rollout_metrics(groups: Groups, credit: Credit, completions: Completions) -> dict[str, float]:
    """Figures of one step's rollouts.

    - `reward`: mean over all processes' lists.
    - `zero_variance`: share of groups whose rewards are all equal.
    - `saturation`: share of lists above R_max, the best reference reward of their prompt (with reference lists only).
    - `zero_reward`: share of lists with reward 0.
    - `advantage`: mean |advantage|; its fall is the paper's gradient decay (BLADE, SIGIR 2026).
    - `entropy`: nats a decision (a token with more than one valid choice), estimated from the samples themselves; not
      there for beams, which are none.
    - `validity`, `repeats`: shares of positions that hold an item, and an item again (this process's lists).
    """
    items = completions.items.numpy()
    largest = groups.rewards.abs().amax(dim=1, keepdim=True)  # [P, 1]
    metrics = {
        "reward": float(groups.rewards.mean()),
        "zero_variance": float(zero_variance(settle_ties(groups.rewards)).double().mean()),
        "zero_reward": float((groups.rewards.abs() <= TIE * largest).double().mean()),
        "advantage": float(credit.advantages.abs().mean()),
        "validity": float((items >= 0).mean()),
        "repeats": float((~first_positions(items) & (items >= 0)).mean()),
        **credit.metrics,
    }
    if not groups.ranked:
        decisions = int((completions.logps != 0).sum())
        metrics["entropy"] = float(-completions.logps.sum()) / max(decisions, 1)
    if groups.reference_rewards is not None:
        rewards, reference = settle_with_references(groups.rewards, groups.reference_rewards)
        metrics["saturation"] = float((rewards > reference.amax(dim=1, keepdim=True)).double().mean())
    return metrics


def ranking_metrics(rollout: RankRollout) -> dict[str, float]:
    """Figures of one step's rankings.

    - `reward`: mean over all processes' orders; `zero_reward`: share of orders without any; `zero_variance`: share of
      sets whose orders are all worth the same.
    - `ranked`: mean reward of the orders by score (this process's, as all that follow).
    - `advantage`: mean |advantage| of the responses.
    - `recommended`: share of positive decisions. `format_failures`: share of answers whose decision had to be forced.
    - `tokens`: mean length of an answer. `entropy`: nats a chosen token, estimated from the samples themselves.
    - `spread`: standard deviation of a set's scores.
    """
    rewards = rollout.all_rankings.rewards
    answers, sets = rollout.answers, rollout.sets
    settled = settle_ties(rewards.flatten(0, 1))
    scores = [line[there] for line, there in zip(rollout.scores, sets.spread(sets.present), strict=True)]
    return {
        "reward": float(rewards.mean()),
        "zero_variance": float(zero_variance(settled).double().mean()),
        "zero_reward": float((settled == 0).double().mean()),
        "ranked": float(rollout.ranked.mean()),
        "advantage": float(rollout.credit.responses.abs().mean()),
        "recommended": float(answers.recommended.double().mean()),
        "format_failures": float((~answers.well_formed).double().mean()),
        "tokens": float(answers.lengths.double().mean()),
        "entropy": float(-answers.logps.sum()) / max(int(answers.chosen.sum()), 1),
        "spread": float(np.mean([line.std(correction=0) for line in scores])),
        **rollout.credit.metrics,
    }


def summarise(log: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """First and last values of each figure (means over a few steps).

    Args:
        log: records of all steps, in order.
    """
    summary = {}
    for name in SUMMARISED:
        values = [record[name] for record in log if name in record]
        if values:
            window = min(WINDOW, -(-len(values) // 3))
            summary[name] = {"first": float(np.mean(values[:window])), "last": float(np.mean(values[-window:]))}
    return summary


def line(summary: Mapping[str, Mapping[str, float]]) -> str:
    """Write the summary as one line for people."""
    shares = {"zero_variance", "saturation", "zero_reward", "repeats"}
    names = {"zero_variance": "zero-variance groups", "saturation": "above R_max", "zero_reward": "zero rewards"}
    parts = []
    for name in ("reward", "zero_variance", "saturation", "zero_reward", "advantage", "kl", "entropy"):
        if name in summary:
            first, last = summary[name]["first"], summary[name]["last"]
            form = ".0%" if name in shares else ".3f"
            label = "|advantage|" if name == "advantage" else names.get(name, name)
            parts.append(f"{label} {first:{form}} -> {last:{form}}")
    return "; ".join(parts) + "."


def plot_curves(log: Sequence[Mapping[str, Any]], reward: str, start: float, file: Path) -> None:
    """Draw the sampled training reward and the greedy validation reward over the steps.

    Args:
        log: records of all steps.
        reward: the expression, for the axis.
        start: validation reward before the first update.
        file: a PNG, replaced.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    steps = [(record["step"], record["reward"]) for record in log if "reward" in record]
    valid = [(0, start), *((record["step"], record["eval_reward"]) for record in log if "eval_reward" in record)]
    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    if steps:
        axes.plot(*zip(*steps, strict=True), label="sampled, training prompts", linewidth=1)
    axes.plot(*zip(*valid, strict=True), label="greedy, validation", marker="o", markersize=3)
    axes.set_xlabel("step")
    axes.set_ylabel(reward, parse_math=False)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
