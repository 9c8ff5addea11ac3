"""How near to the machine's matrix rate decoding and updates are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from grpo import our_step
from machine import gemm_ceiling, product_rate
from memory import held
from recalign.runs.cost import MemoryWatch
from setting import Setting
from supervised import update
from timing import median_seconds

Table = list[dict[str, Any]]
SQUARE = 8192
"""Width of the matrices whose product is the ceiling of a GPU."""


@dataclass
class Work:
    """A call whose rate is taken.

    Args:
        make: returns what is called; an update copies the model then.
        passed: rows of the matrix products; of a rollout update the prompts' alone, completions come on top.
        rows: rows of an update, 0 where nothing is trained.
        completions: of an update.
        lengths: mean tokens of them, noted by every call.
    """

    make: Callable[[], Callable[[], Any]]
    passed: int
    rows: int = 0
    completions: int = 0
    lengths: list[float] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Rows of the products, completions included."""
        return self.passed + round(self.completions * float(np.mean(self.lengths or [0.0])))


def rates(setting: Setting, plan: Any) -> dict[str, Table]:
    """Return the rates of whole calls beside those of bare matrix products, in one table.

    Args:
        setting: model and titles.
        plan: sizes, as `plans.Plan` has them.
    """
    works = _works(setting, plan)
    on_gpu = setting.policy.device.type == "cuda"
    return {"matrix rate": gpu_rates(setting, works) if on_gpu else _cpu_rates(setting, works)}


def _works(setting: Setting, plan: Any) -> dict[str, Work]:
    timed, trained, rows = setting.as_timed, setting.trained_as_timed, setting.test[-plan.prompts :]
    width, beams = min(10, len(setting.catalogue)), plan.prompts * min(10, len(setting.catalogue))
    engine, batch, asked = timed.engine(), setting.train[: plan.batch], rows[: plan.step_prompts]
    answers = [setting.policy.titles.response(row.targets) for row in batch]
    rollout = Work(
        lambda: our_step(trained, asked, plan.group_size, rollout.lengths),
        sum(map(len, setting.prompts(asked))),
        rows=len(asked),
        completions=len(asked) * plan.group_size,
    )

    def decoding(passed: int, call: Callable[..., Any], **arguments: Any) -> Work:
        return Work(lambda: partial(call, rows, **arguments), passed)

    return {
        "beam, full": decoding(beams, engine.beam, width=width, size=width, scoring="full"),
        "beam, renormalised": decoding(beams, engine.beam, width=width, size=width),
        "exact": decoding(beams, engine.exact, size=width),
        "16 samples": decoding(plan.prompts * 16, engine.sample, group_size=16, list_length=1),
        "sft update": Work(
            lambda: update(trained, batch, "sft"), sum(map(len, [*setting.prompts(batch), *answers])), rows=len(batch)
        ),
        "grpo update": rollout,
    }


def _cpu_rates(setting: Setting, works: dict[str, Work]) -> Table:
    """Beside PyTorch's products and those of layouts for oneDNN, of as many rows."""
    table = []
    for name, work in works.items():
        call = work.make()
        operations = _operations(call) / 1e9
        achieved = operations / median_seconds(call)
        plain, fast = gemm_ceiling(work.tokens, setting.policy.model.config.hidden_size)
        table.append(
            {
                "what": name,
                "GFLOP": operations,
                "achieved GFLOP/s": achieved,
                "rows a call": work.tokens,
                "torch's product GFLOP/s": plain,
                "our product GFLOP/s": fast,
                "share of the better": achieved / max(plain, fast),
            }
        )
    return table


def gpu_rates(setting: Setting, works: dict[str, Work], square: int = SQUARE) -> Table:
    """Beside the GPU's product of as many rows at the feed-forward layers' shape, and its largest: of square matrices.

    Args:
        setting: whose device and dtype they are.
        works: name -> what is called.
        square: width of the square matrices.

    Returns:
        One row a call; `MB` is the most that it allocates beyond what was held, which the weights of an update are
            part of and those of decoding are not.
    """
    device, dtype, config = setting.policy.device, setting.dtype, setting.policy.model.config
    ceiling, table = product_rate(square, square, square, device, dtype), []
    for name, work in works.items():
        before = held(device)
        call = work.make()
        operations = _operations(call) / 1e12
        watch = MemoryWatch(device)
        seconds = median_seconds(call)
        most, tokens = watch.peak_mb() - before, work.tokens
        del call
        product = product_rate(tokens, config.hidden_size, config.intermediate_size, device, dtype)
        achieved = operations / seconds
        table.append(
            {
                "what": name,
                "seconds": seconds,
                "TFLOP": operations,
                "TFLOP/s": achieved,
                "rows a call": tokens,
                "product TFLOP/s": product,
                "share of the product": achieved / product,
                f"{square} x {square} TFLOP/s": ceiling,
                "share of the ceiling": achieved / ceiling,
                "tokens/s": tokens / seconds if work.rows else "",
                "rows/s": work.rows / seconds if work.rows else "",
                "MB": most,
            }
        )
    return table


def _operations(work: Callable[[], Any]) -> float:
    """Floating-point operations of some work; the counter is told what our products are."""
    with FlopCounterMode(display=False, custom_mapping={torch.ops.mkldnn._linear_pointwise: _of_product}) as counter:
        work()
    return counter.get_total_flops()


def _of_product(inputs: torch.Size, *_: object, out_shape: torch.Size, **__: object) -> int:
    return 2 * inputs.numel() * out_shape[-1]
