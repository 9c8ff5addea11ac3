"""How costs grow with catalogue, beam, group and prompt; and how near to the machine's matrix rate we are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from grpo import our_step
from machine import gemm_ceiling, generated_paths
from peers import DictTrie, generate_beams
from recalign.api import Catalogue, Row
from recalign.decoding.engine import PolicyEngine
from recalign.text.item_tokens import TitleTokens
from recalign.text.prompts import Prompter
from setting import Setting
from supervised import update
from timing import timed

Table = list[dict[str, Any]]


def growth(setting: Setting, trained: Setting, plan: Any) -> dict[str, Table]:
    """Return one table a question: rows of name -> value. What is fixed: ten beams, `plan.prompts` prompts.

    Args:
        setting: model and titles.
        trained: the same, as it is trained.
        plan: sizes, as `plans.Plan` has them.
    """
    rows, engine = setting.test[-plan.prompts :], setting.engine()
    sizes = [size for size in (1000, 10_000, 100_000, 1_000_000) if size <= plan.titles] or [plan.titles]
    widths = [width for width in (1, 2, 5, 10, 20, 50) if width <= len(setting.catalogue)]
    return {
        "catalogue size": [_catalogue_size(setting, size, plan) for size in sizes],
        "beam width": [
            {"width": width, **_beams(engine, rows, width), "exact s": _median(partial(engine.exact, rows, size=width))}
            for width in widths
        ],
        "group size": [
            {"G": size, "sample s": _median(partial(engine.sample, rows, group_size=size, list_length=1))}
            for size in (4, 8, 16, 32, 64)
        ],
        "prompt length": [_prompt_length(setting, tokens, plan) for tokens in (64, 128, 256, 512, 1024)],
        "prompts a batch": [_batch(setting, count) for count in (1, 2, 4, 8, 16) if count <= 2 * plan.prompts],
        **rates(setting, trained, plan),
    }


def _median(work: Callable[[], Any], repeats: int = 3) -> float:
    work()
    return float(np.median([timed(work)[0] for _ in range(repeats)]))


def _beams(engine: PolicyEngine, rows: list[Row], width: int) -> dict[str, float]:
    return {
        f"{scoring} s": _median(partial(engine.beam, rows, width=width, size=width, scoring=scoring))
        for scoring in ("full", "renormalised")
    }


def _batch(setting: Setting, count: int) -> dict[str, float]:
    """Seconds a prompt of our full-vocabulary beam search and of `generate`, by the number of prompts in one call."""
    rows, trie = setting.test[-count:], DictTrie(setting.policy.titles)
    prompts, longest = setting.prompts(rows), max(map(len, setting.policy.titles.paths))
    width, engine = min(10, len(setting.catalogue)), setting.engine()
    model = setting.policy.model
    ours = _median(partial(engine.beam, rows, width=width, size=width, scoring="full"))
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
        "exact s": _median(partial(engine.exact, rows, size=min(10, size))),
        "16 samples s": _median(partial(engine.sample, rows, group_size=16, list_length=1)),
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
        "16 samples s": _median(partial(engine.sample, rows, group_size=16, list_length=1)),
    }


def rates(setting: Setting, trained: Setting, plan: Any) -> dict[str, Table]:
    """Achieved GFLOP/s of whole calls, beside those of bare matrix products of as many rows; arguments as above."""
    engine, rows = setting.engine(), setting.test[-plan.prompts :]
    width, hidden = min(10, len(setting.catalogue)), setting.policy.model.config.hidden_size
    batch = setting.train[: plan.batch]
    tokens = sum(map(len, setting.prompts(batch)))
    works = {
        "beam, full": (plan.prompts * width, partial(engine.beam, rows, width=width, size=width, scoring="full")),
        "beam, renormalised": (plan.prompts * width, partial(engine.beam, rows, width=width, size=width)),
        "exact": (plan.prompts * width, partial(engine.exact, rows, size=width)),
        "16 samples": (plan.prompts * 16, partial(engine.sample, rows, group_size=16, list_length=1)),
        "sft update": (tokens, update(trained, batch, "sft")),
        "grpo update": (tokens, our_step(trained, rows[: plan.step_prompts], plan.group_size, [])),
    }
    table = []
    for name, (rows_a_call, work) in works.items():
        operations = _operations(work)
        plain, fast = gemm_ceiling(rows_a_call, hidden)
        achieved = operations / _median(work)
        table.append(
            {
                "what": name,
                "GFLOP": operations,
                "achieved GFLOP/s": achieved,
                "rows a call": rows_a_call,
                "torch's product GFLOP/s": plain,
                "our product GFLOP/s": fast,
                "share of the better": achieved / max(plain, fast),
            }
        )
    return {"matrix rate": table}


def _operations(work: Callable[[], Any]) -> float:
    """GFLOP of some work; the counter is told what our products are."""
    with FlopCounterMode(display=False, custom_mapping={torch.ops.mkldnn._linear_pointwise: _of_product}) as counter:
        work()
    return counter.get_total_flops() / 1e9


def _of_product(inputs: torch.Size, *_: object, out_shape: torch.Size, **__: object) -> int:
    return 2 * inputs.numel() * out_shape[-1]
