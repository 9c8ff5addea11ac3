"""The module that scores a candidate by the hidden state of the answer to its question."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

RANKING_HEAD = "ranking_head"
"""Its name among the modules beside a model; a model that has it ranks by it."""
WIDTH = 256


def ranking_head(hidden: int) -> nn.Module:
    """Make a ranking head: Linear(H, 256), GELU, Linear(256, 1) without a bias; the last layer starts at zero.

    The first ranking distribution is uniform therefore: every order of K candidates has log-probability -ln K!. A bias
    would be added to all scores alike, which changes no order and no probability of one: its gradient is rounding.

    Args:
        hidden: H, width of the hidden states.

    Source: "Reasoning to Rank", Sec. 3.2 (a light head; MLP in a table). Width and depth are ours.
    """
    from torch import nn

    last = nn.Linear(WIDTH, 1, bias=False)
    nn.init.zeros_(last.weight)
    return nn.Sequential(nn.Linear(hidden, WIDTH), nn.GELU(), last)


def head_scores(head: nn.Module, states: Tensor) -> Tensor:
    """Return a head's scores [N] of hidden states [N, H] in the format of its weights, under autocast too.

    Bfloat16 has 8 bits: candidates with like scores would be tied.
    """
    import torch

    weight = next(head.parameters())
    with torch.autocast(weight.device.type, enabled=False):
        return head(states.to(weight.device, weight.dtype))[:, 0]  # type: ignore[no-any-return]
