"""How costs grow with catalogue, beam, group and prompt."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from machine import generated_paths
from peers import DictTrie, generate_beams
from rates import Table, rates
from recalign.api import Catalogue, Row
from recalign.decoding.engine import PolicyEngine
from recalign.text.item_tokens import TitleTokens
from recalign.text.prompts import Prompter
from setting import Setting
from timing import median_seconds, timed


def growth(setting: Setting, plan: Any) -> dict[str, Table]:
    """Return one table a question: rows of name -> value. What is fixed: ten beams, `plan.prompts` prompts.

    Args:
        setting: model and titles.
        plan: sizes, as `plans.Plan` has them.
    """
    shares, setting = rates(setting, plan), setting.as_timed
    rows, engine = setting.test[-plan.prompts :], setting.engine()
    sizes = [size for size in (1000, 10_000, 100_000, 1_000_000) if size <= plan.titles] or [plan.titles]
    widths = [width for width in (1, 2, 5, 10, 20, 50) if width <= len(setting.catalogue)]
    return {
        "catalogue size": [_catalogue_size(setting, size, plan) for size in sizes],
        "beam width": [
            {
                "width": width,
                **_beams(engine, rows, width),
                "exact s": median_seconds(partial(engine.exact, rows, size=width)),
            }
            for width in widths
        ],
        "group size": [
            {"G": size, "sample s": median_seconds(partial(engine.sample, rows, group_size=size, list_length=1))}
            for size in (4, 8, 16, 32, 64)
        ],
        "prompt length": [_prompt_length(setting, tokens, plan) for tokens in (64, 128, 256, 512, 1024)],
        "prompts a batch": [_batch(setting, count) for count in (1, 2, 4, 8, 16) if count <= 2 * plan.prompts],
        **shares,
    }


def _beams(engine: PolicyEngine, rows: list[Row], width: int) -> dict[str, float]:
    return {
        f"{scoring} s": median_seconds(partial(engine.beam, rows, width=width, size=width, scoring=scoring))
        for scoring in ("full", "renormalised")
    }


def _batch(setting: Setting, count: int) -> dict[str, float]:
    """Seconds a prompt of our full-vocabulary beam search and of `generate`, by the number of prompts in one call."""
    rows, trie = setting.test[-count:], DictTrie(setting.policy.titles)
    prompts, longest = setting.prompts(rows), max(map(len, setting.policy.titles.paths))
    width, engine = min(10, len(setting.catalogue)), setting.engine()
    model = setting.policy.model
    ours = median_seconds(partial(engine.beam, rows, width=width, size=width, scoring="full"))
    peer = timed(lambda: generate_beams(model, trie, prompts, width=width, longest=longest, renormalised=False))[0]
    return {"prompts": count, "full s a prompt": ours / count, "generate s a prompt": peer / count}


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
    build, engine = timed(lambda: PolicyEngine(policy, catalogue, exclude_history=False))
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
        "exact s": median_seconds(partial(engine.exact, rows, size=min(10, size))),
        "16 samples s": median_seconds(partial(engine.sample, rows, group_size=16, list_length=1)),
    }


class _Resized:
    """A prompter whose prompts have a given number of tokens: those of the true one, over and over."""

    def __init__(self, prompter: Prompter, tokens: int) -> None:
        self.prompter, self.tokens = prompter, tokens
        self.task, self.list_length = prompter.task, prompter.list_length

    def encode(self, row: Row) -> np.ndarray:
        return np.resize(self.prompter.encode(row)[::-1], self.tokens)[::-1]


def _prompt_length(setting: Setting, tokens: int, plan: Any) -> dict[str, Any]:
    policy = replace(setting.policy, prompter=_Resized(setting.policy.prompter, tokens))
    rows, engine = setting.test[-plan.prompts :], PolicyEngine(policy, setting.catalogue, exclude_history=False)
    return {
        "tokens": tokens,
        **_beams(engine, rows, min(10, len(setting.catalogue))),
        "16 samples s": median_seconds(partial(engine.sample, rows, group_size=16, list_length=1)),
    }
