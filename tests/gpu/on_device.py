"""Where tests of a GPU compute, and what they share.

Where there is no GPU they are skipped. `RECALIGN_TEST_DEVICE=cpu` runs them on a CPU against itself, through the
branches that a GPU takes, so that a mistake in a test shows before a GPU is at hand.
"""

import os

import pytest
import torch

from recalign import cli
from recalign.decoding.engine import PolicyEngine
from recalign.models.hardware import Hardware
from recalign.models.lora import LoraOptions
from recalign.models.policy import load_policy
from tests.decoding.doubles import row

DEVICE = os.environ.get("RECALIGN_TEST_DEVICE", "cuda")
NEEDS_GPU = pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="no GPU is here")
CLOSE = {"atol": 2e-4, "rtol": 2e-4}
"""How far two machines' sums of float32 products are apart, in nats."""
ROWS = [row(place, history) for place, history in enumerate(([0, 1, 2], [3], [4, 5, 6, 7, 8], [9, 2]))]


def engine_of(worlds, task, device, *, dtype="float32", lora=False, model="builtin:tiny,hidden=32", sharpness=0.3):
    """An engine whose model is the same on every device: numbers from the CPU are added to what is trained."""
    options = {"model": worlds["llama"], "lora": LoraOptions(rank=4)} if lora else {"model": model}
    name = options.pop("model")
    policy = load_policy(
        name, worlds[task], trainable=True, dtype=dtype, hardware=Hardware(device=device),
        template=None if str(name).startswith("builtin") else "alpaca", **options,
    )  # fmt: skip
    policy.model.eval()
    shake(policy.model, sharpness)
    return PolicyEngine(policy, worlds[task].catalogue, exclude_history=task != "rank")


@torch.no_grad()
def shake(module, size):
    """Add random numbers, drawn on the CPU, to the matrices that are trained."""
    generator = torch.Generator().manual_seed(1)
    for weight in module.parameters():
        if weight.requires_grad and weight.dim() > 1:
            noise = torch.randn(weight.shape, generator=generator) * weight.shape[1] ** -0.5
            weight.add_(noise.to(weight), alpha=size)


def distance(found, expected):
    """Norm of the difference of two sets of gradients, as a share of the norm of the second."""
    assert found.keys() == expected.keys()
    size = sum(each.square().sum() for each in expected.values()).sqrt()
    assert size > 0
    return float(sum((found[name] - each).square().sum() for name, each in expected.items()).sqrt() / size)


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main([*map(str, arguments)])
    return stop.value.code or 0
