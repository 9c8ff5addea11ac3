"""What is measured, how much of it, and what it should come to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

GOALS = {
    "beam_full": ">= 12",
    "beam_renormalised": ">= 30",
    "exact_over_beam": "<= 1.2",
    "rollouts": ">= 8",
    "grpo_full": ">= 7",
    "grpo_real": ">= 14",
    "one_prompt": ">= 12",
    "sft_step": ">= 1.5",
    "sft_memory": "<= 0.6",
    "grpo_memory": "<= 0.6",
    "rank_decode": ">= 6",
    "rank_step": ">= 5",
    "bear_over_sft": "<= 1.05",
    "msl_over_sft": "<= 1.05",
    "help_seconds": "< 0.5",
    "trie_seconds": "<= 20",
    "prepare": "",
}
PRETRAINED_GOALS = {"beam_renormalised": ">= 20", "grpo_real": ">= 8"}
"""Where they are others with a pretrained model."""
PRETRAINED = (
    "beam_full",
    "beam_renormalised",
    "one_prompt",
    "rollouts",
    "grpo_real",
    "sft_step",
    "sft_memory",
    "grpo_memory",
    "rates",
)
LARGE = (
    "beam_renormalised",
    "rollouts",
    "sft_step",
    "grpo_real",
    "sft_memory",
    "grpo_memory",
    "rates",
)
MODELS = {"smollm2": PRETRAINED, "llama-1b": LARGE}
"""What is measured with the models that are chosen by name."""
QUICK = (
    "beam_full",
    "beam_renormalised",
    "one_prompt",
    "exact_over_beam",
    "rollouts",
    "grpo_full",
    "grpo_real",
    "rank_decode",
    "rank_step",
    "bear_over_sft",
    "help_seconds",
)
TABLES = ("growth", "rates")
"""What comes as tables: how costs grow, and how much of the machine is used, which is one of those tables too."""
FULL = (*(name for name in GOALS if name not in ("sft_memory", "grpo_memory")), "growth")


@dataclass(frozen=True)
class Plan:
    """How much to run.

    Args:
        model: hidden, layers, vocabulary, titles, training steps of the model, its device (see `setting.Size`).
        prompts: prompts of the decoding benchmarks, in one batch.
        few_prompts: those of `beam_renormalised`, whose peer is the slowest of all.
        step_prompts: P of a GRPO step.
        group_size: G.
        candidates: K of the ranking benchmarks.
        rationale: tokens of a rationale there.
        ranked: rows of `rank_decode`.
        batch: rows of a supervised batch.
        repeats: pairs of timings.
        seconds: begin no further pair of a benchmark after this time.
        interactions: of the `prepare` benchmark.
        titles: of the trie benchmark.
    """

    model: dict[str, Any] = field(default_factory=dict)
    prompts: int = 8
    few_prompts: int = 8
    step_prompts: int = 8
    group_size: int = 16
    candidates: int = 20
    rationale: int = 60
    ranked: int = 8
    batch: int = 16
    repeats: int = 5
    seconds: float = 300.0
    interactions: int = 5_000_000
    titles: int = 1_000_000


SMOLLM2 = {"pretrained": "builtin:smollm2", "adapter": True}
LLAMA_1B = {
    "hidden": 2048,
    "layers": 16,
    "heads": 32,
    "kv_heads": 8,
    "feed_forward": 8192,
    "vocabulary": 128_256,
    "tied": True,
    "training": 0,
    "adapter": True,
}
"""The shape of Llama-3.2-1B."""
PLANS = {
    "smollm2 full": Plan(SMOLLM2, step_prompts=2, repeats=3, seconds=600.0),
    "smollm2 quick": Plan(SMOLLM2, prompts=2, few_prompts=2, step_prompts=1, batch=4, repeats=1, seconds=60.0),
    "llama-1b full": Plan(LLAMA_1B, prompts=32, few_prompts=32, repeats=5, seconds=600.0),
    "llama-1b quick": Plan(LLAMA_1B, prompts=16, few_prompts=16, step_prompts=4, repeats=2, seconds=30.0),
    "full": Plan(),
    "quick": Plan({"training": 15}, step_prompts=2, ranked=2, repeats=3, seconds=10.0),
    "smoke": Plan(
        {"hidden": 32, "layers": 1, "vocabulary": 800, "titles": 80, "training": 1},
        prompts=2,
        few_prompts=2,
        step_prompts=2,
        group_size=2,
        candidates=3,
        rationale=5,
        ranked=2,
        batch=2,
        repeats=1,
        seconds=5.0,
        interactions=2000,
        titles=500,
    ),
}
