"""What a result cost: decoding speed, tokens, forward passes, peak memory, training time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

COLUMNS = {
    "prompts_per_second": "prompts/s",
    "prompt_tokens": "prompt tokens",
    "completion_tokens": "completion tokens",
    "forward_passes": "forward passes",
    "peak_memory_mb": "peak memory (MB)",
    "decode_seconds": "decoding (s)",
    "training_seconds": "training (s)",
}
"""Key in `metrics.json` -> heading; a key is absent where it was not recorded."""


def read_cost(decode: Mapping[str, Any], training: Mapping[str, Any]) -> dict[str, float]:
    """Gather the cost of a result from the `run.json` of its decode run and of its model run ({}: none known)."""
    spent = dict(decode.get("results", {}).get("cost") or {})
    seconds = spent.pop("seconds", None)
    prompts = spent.get("prompts")
    cost = {key: float(spent[key]) for key in COLUMNS if spent.get(key) is not None}
    if seconds:
        cost["decode_seconds"] = float(seconds)
        if prompts:
            cost["prompts_per_second"] = prompts / seconds
    results = training.get("results", {})
    if results.get("seconds") is not None:
        cost["training_seconds"] = float(results["seconds"])
    elif training.get("finished") and training.get("started"):
        cost["training_seconds"] = float(training["finished"] - training["started"])
    return cost


def mean_of(figures: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Average the figures of several runs, key by key, over the runs that have the key."""
    gathered: dict[str, list[float]] = {}
    for run in figures:
        for key, value in run.items():
            gathered.setdefault(key, []).append(value)
    return {key: sum(values) / len(values) for key, values in gathered.items()}
