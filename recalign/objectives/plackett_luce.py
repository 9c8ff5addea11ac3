"""The Plackett-Luce distribution over orders of candidates: probabilities, draws, and the best order of graded ones.

Dimension letters: K candidates of a row, M orders of them; any dimensions may stand before these.
"""

from __future__ import annotations

import torch


def order_logps(scores: torch.Tensor, orders: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
    """Return the parts of log P(order | scores) = sum_k [ s_order(k) - logsumexp over j >= k of s_order(j) ].

    Args:
        scores: [..., K]; gradients flow.
        orders: [..., M, K] int64, places of the candidates in `scores`, best first.
        present: [..., K] bool, False for padding, which comes last in every order; None: all are there.

    Returns:
        [..., M, K] the log-probability of each choice among what is left; 0 for padding. Their sum is log P(order).

    Source: Plackett, "The Analysis of Permutations", 1975; R2Rank, Eq. 4.
    """
    ordered = _in_order(scores, orders)
    if present is None:
        return ordered - ordered.flip(-1).logcumsumexp(-1).flip(-1)
    there = _in_order(present, orders)
    ordered = ordered.masked_fill(~there, torch.finfo(ordered.dtype).min / 4)  # so low that it weighs exactly 0
    return (ordered - ordered.flip(-1).logcumsumexp(-1).flip(-1)).masked_fill(~there, 0.0)


def draw_orders(scores: torch.Tensor, noise: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
    """Draw orders with the probabilities of `order_logps`, by sorting scores with Gumbel noise.

    Args:
        scores: [..., K].
        noise: [..., M, K] independent uniform numbers in [0, 1).
        present: as in `order_logps`.

    Returns:
        [..., M, K] int64, best first, padding last.

    Source: Yellott, "The relationship between Luce's choice axiom, Thurstone's theory of comparative judgment, and the
        double exponential distribution", 1977.
    """
    gumbel = -torch.log(-torch.log(noise.double().clamp(min=2.0**-54)))
    return _descending(scores.double().unsqueeze(-2) + gumbel, present)


def best_orders(gains: torch.Tensor, noise: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
    """Sort candidates by their gains, best first; the order of equal gains is drawn.

    Args:
        gains: [..., K].
        noise: [..., M, K] uniform numbers in [0, 1), which order equal gains.
        present: as in `order_logps`.

    Returns:
        [..., M, K] int64, padding last.
    """
    drawn = _descending(noise, present)
    gains = gains if present is None else gains.masked_fill(~present, -torch.inf)
    by_gain = _in_order(gains, drawn).sort(dim=-1, descending=True, stable=True).indices
    return drawn.gather(-1, by_gain)


def _in_order(values: torch.Tensor, orders: torch.Tensor) -> torch.Tensor:
    """[..., K] values as the orders have them: [..., M, K]."""
    return values.unsqueeze(-2).expand(orders.shape).gather(-1, orders)


def _descending(values: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    if present is not None:
        values = values.masked_fill(~present.unsqueeze(-2), -torch.inf)
    return values.sort(dim=-1, descending=True, stable=True).indices
