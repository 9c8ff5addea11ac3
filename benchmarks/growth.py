"""How costs grow with catalogue, beam, group and prompt; and how near to the machine's matrix rate we are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from torch.utils.flop_counter import FlopCounterMode

from machine import gemm_ceiling, generated_paths
from recalign.api import Catalogue, Row
from recalign.data.prompts import Prompter
from recalign.data.tokens import TitleTokens
from recalign.generation.engine import Engine
from setting import Setting
from supervised import update
from timing import timed

Table = list[dict[str, Any]]


def growth(setting: Setting, plan: Any) -> dict[str, Table]:
    """Return one table a question: rows of name -> value."""
    rows, engine = setting.test[-plan.prompts :], setting.engine()
    sizes = [size for size in (1000, 10_000, 100_000, 1_000_000) if size <= plan.titles] or [plan.titles]
    return {
        "catalogue size": [_catalogue_size(setting, size, plan) for size in sizes],
        "beam width": [
            {"width": width, **_beams(engine, rows, width)}
            for width in (5, 10, 20, 50)
            if width <= len(setting.catalogue)
        ],
        "group size": [
            {"G": size, "sample s": _median(partial(engine.sample, rows, group_size=size, list_length=1))}
            for size in (1, 4, 16, 64)
        ],
        "prompt length": [
            _prompt_length(setting, items, plan)
            for items in (1, 2, 5, 10)
            if any(len(row.history) >= items for row in setting.test)
        ],
        "matrix rate": _rates(setting, plan),
    }


def _median(work: Callable[[], Any], repeats: int = 3) -> float:
    work()
    return float(np.median([timed(work)[0] for _ in range(repeats)]))


def _beams(engine: Engine, rows: list[Row], width: int) -> dict[str, float]:
    return {
        f"{scoring} s": _median(partial(engine.beam, rows, width=width, size=width, scoring=scoring))
        for scoring in ("full", "renormalised")
    }


def _catalogue_size(setting: Setting, size: int, plan: Any) -> dict[str, Any]:
    """Search and sample with the same model and generated titles of about 20 tokens."""
    vocabulary = setting.policy.model.config.vocab_size
    titles = TitleTokens(
        generated_paths(size, vocabulary=vocabulary), setting.policy.titles.separator, setting.policy.titles.end
    )
    names = [str(item) for item in range(size)]
    catalogue = Catalogue(names, names, [()] * size, [""] * size, np.ones(size, dtype=np.int64))
    tokenizer = setting.policy.tokenizer
    prompter = Prompter("compact", tokenizer, catalogue, titles, task="next", list_length=1)
    policy = replace(setting.policy, titles=titles, prompter=prompter)
    build, engine = timed(lambda: Engine(policy, catalogue, exclude_history=False))
    generator = np.random.default_rng(0)
    rows = [
        Row(index, str(index), generator.choice(size, 10), np.zeros(1, dtype=np.int64), np.ones(1), 0.0)
        for index in range(plan.prompts)
    ]
    return {
        "titles": size,
        "trie s": build,
        "trie MB": engine.trie.bytes / 2**20,
        **_beams(engine, rows, min(10, size)),
        "exact s": _median(partial(engine.exact, rows, size=min(10, size))),
        "16 samples s": _median(partial(engine.sample, rows, group_size=16, list_length=1)),
    }


def _prompt_length(setting: Setting, items: int, plan: Any) -> dict[str, Any]:
    rows = [replace(row, history=row.history[-items:]) for row in setting.test if len(row.history) >= items][
        : plan.prompts
    ]
    engine = setting.engine()
    return {
        "items": items,
        "tokens": float(np.mean([len(prompt) for prompt in setting.prompts(rows)])),
        **_beams(engine, rows, min(10, len(setting.catalogue))),
        "16 samples s": _median(partial(engine.sample, rows, group_size=16, list_length=1)),
    }


def _rates(setting: Setting, plan: Any) -> Table:
    """Achieved GFLOP/s of whole calls, beside those of a bare matrix product of as many rows."""
    engine, rows = setting.engine(), setting.test[-plan.prompts :]
    width, hidden = min(10, len(setting.catalogue)), setting.policy.model.config.hidden_size
    batch = setting.train[: plan.batch]
    tokens = sum(map(len, setting.prompts(batch)))
    works = {
        "beam, full": (plan.prompts * width, partial(engine.beam, rows, width=width, size=width, scoring="full")),
        "16 samples": (plan.prompts * 16, partial(engine.sample, rows, group_size=16, list_length=1)),
        "sft update": (tokens, update(setting, batch, "sft")),
    }
    table = []
    for name, (rows_a_call, work) in works.items():
        with FlopCounterMode(display=False) as counter:
            work()
        table.append(
            {
                "what": name,
                "GFLOP": counter.get_total_flops() / 1e9,
                "achieved GFLOP/s": counter.get_total_flops() / 1e9 / _median(work),
                "rows a call": rows_a_call,
                "bare GFLOP/s": gemm_ceiling(rows_a_call, hidden),
            }
        )
    return table
