"""What the rollout objectives share: group advantages, clipped surrogate loss, the proxy reward of best-of-N."""

from __future__ import annotations

import torch

from recalign.api import PolicyBatch, RolloutParams

TIE = 1e-9
"""Rewards nearer than this are equal: the same titles in another order may differ in the last bit of a float sum."""


def group_advantages(rewards: torch.Tensor, scale: str) -> torch.Tensor:
    """Return A = (r - mean) / std within each group; 0 where all rewards of a group are equal.

    Args:
        rewards: [P, G] float64.
        scale: "std", or "none" for r - mean (Dr. GRPO).

    Returns:
        [P, G] float64.

    Source: GRPO (Shao et al., 2024), BLADE Eq. 2. The standard deviation is the sample's (divided by G - 1), as in TRL;
        no epsilon is added to it, because groups without variance are found by comparison.
    """
    centred = rewards - rewards.mean(dim=1, keepdim=True)  # [P, G]
    constant = zero_variance(rewards)[:, None]  # [P, 1]
    if scale == "std":
        centred = centred / rewards.std(dim=1, keepdim=True).masked_fill(constant, 1.0)
    return centred.masked_fill(constant, 0.0)


def zero_variance(rewards: torch.Tensor) -> torch.Tensor:
    """Return [P] bool: groups whose rewards [P, G] are all equal, from which nothing can be learnt."""
    return rewards.amax(dim=1) - rewards.amin(dim=1) <= TIE


def strictly_below(values: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
    """Count how many of a row's sample lie strictly below each of its values; ties (see `TIE`) do not.

    Args:
        values: [P, G].
        sample: [P, M].

    Returns:
        [P, G] int64.
    """
    return torch.searchsorted(sample.sort(dim=1).values, (values - TIE).contiguous())


def proxy_reward(rewards: torch.Tensor, reference: torch.Tensor | None, *, tau: float, best_of: int) -> torch.Tensor:
    """Return (N - 1) log F(r) with F = (n_ref + tau * n_batch) / (M + tau * G).

    n_ref and n_batch are how many of the M reference and of the group's G rewards are strictly below r.

    Args:
        rewards: [P, G] float64.
        reference: [P, M] float64 rewards of the reference lists, or None for M = 0 ("no prior", BLADE Fig. 6).
        tau: weight of the group itself; 0 is static best-of-N (BLADE Eq. 7).
        best_of: N.

    Returns:
        [P, G] float64, at most 0.

    Source: BLADE (Chen et al., SIGIR 2026), Eq. 13-15; static: vBoN (Amini et al., 2024).
    Differs from the paper: F is floored at 0.5 / (M + tau * G), because F = 0 (any reward at the minimum, such as the
        many zeros of ndcg) would give log 0; the floor keeps the order.
    """
    below = tau * strictly_below(rewards, rewards).to(rewards.dtype)  # [P, G]
    total = tau * rewards.shape[1]
    if reference is not None:
        below = below + strictly_below(rewards, reference)
        total += reference.shape[1]
    return (best_of - 1) * torch.log(below.clamp(min=0.5) / total)


def clipped_surrogate(batch: PolicyBatch, params: RolloutParams) -> tuple[torch.Tensor, dict[str, float]]:
    """Return the PPO-clipped policy loss with a k3 KL penalty, averaged over tokens, then over completions.

    loss = -(1/N) sum_i (1/T_i) sum_t [ min(rho A, clip(rho, 1 - eps, 1 + eps) A) - beta * KL_t ]

    Args:
        batch: log-probabilities [N, T] and advantages of N completions.
        params: clip_epsilon (eps), kl_beta (beta), length_normalise (False: without 1/T_i, Dr. GRPO).

    Returns:
        The scalar loss and the figures `clipped` (share of tokens whose ratio was clipped) and, with a reference, `kl`.

    Source: GRPO (Shao et al., 2024), BLADE Eq. 3.
    """
    ratio = torch.exp(batch.logps - batch.old_logps)  # [N, T]
    clipped = ratio.clamp(1 - params.clip_epsilon, 1 + params.clip_epsilon)
    gain = torch.minimum(ratio * batch.advantages, clipped * batch.advantages)  # [N, T]
    loss, metrics = penalised_loss(gain, batch, params.kl_beta, length_normalise=params.length_normalise)
    share = ((ratio != clipped) & batch.mask).sum() / batch.mask.sum().clamp(min=1)
    return loss, {"clipped": float(share), **metrics}


def penalised_loss(
    gain: torch.Tensor, batch: PolicyBatch, kl_beta: float, *, length_normalise: bool = True
) -> tuple[torch.Tensor, dict[str, float]]:
    """Return -(1/N) sum_i (1/T_i) sum_t [ gain - beta * KL_t ] with the k3 estimator of the KL.

    Args:
        gain: [N, T].
        batch: of the completions; without `reference_logps` there is no KL.
        kl_beta: beta.
        length_normalise: divide by T_i.

    Returns:
        The scalar loss and, with a reference, the figure `kl`.
    """
    mask = batch.mask.to(batch.logps.dtype)  # [N, T]
    metrics = {}
    if batch.reference_logps is not None:
        difference = batch.reference_logps - batch.logps
        kl = torch.exp(difference) - difference - 1  # [N, T]
        gain = gain - kl_beta * kl
        metrics["kl"] = float(((kl * mask).sum() / mask.sum().clamp(min=1)).detach())
    per_completion = (gain * mask).sum(dim=1)  # [N]
    if length_normalise:
        per_completion = per_completion / mask.sum(dim=1).clamp(min=1)
    return -per_completion.mean(), metrics
