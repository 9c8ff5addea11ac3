"""What the rollout objectives share: group advantages, clipped surrogate loss, the proxy reward of best-of-N."""

from __future__ import annotations

import torch

from recalign.api import PolicyBatch, RolloutParams

TIE = 1e-12
"""Rewards of a prompt that differ by less than this share of the largest of them are equal: the same titles in another
order may differ in the last bits of a float sum. A share, so that a reward may be of any scale."""


def settle_ties(rewards: torch.Tensor) -> torch.Tensor:
    """Make rewards equal that differ by rounding only, so that whatever compares them later may do so exactly.

    In ascending order, each reward takes the value of the smallest one that it is within `TIE` of. So the order is
    kept, rewards further apart than `TIE` stay different however many lie between them, and settled rewards stay as
    they are.

    Args:
        rewards: [P, N] float64, all that is compared for each of P prompts.

    Returns:
        [P, N] float64.
    """
    ascending, places = rewards.sort(dim=1)
    width = TIE * rewards.abs().amax(dim=1)  # [P]
    columns = list(ascending.unbind(dim=1))
    for column in range(1, len(columns)):
        same = columns[column] - columns[column - 1] <= width  # the column before holds what its tie begins with
        columns[column] = torch.where(same, columns[column - 1], columns[column])
    return torch.empty_like(rewards).scatter(1, places, torch.stack(columns, dim=1))


def settle_with_references(rewards: torch.Tensor, reference: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Settle the ties among rewards [P, G] and reference rewards [P, M] together; return both."""
    size = rewards.shape[1]
    settled = settle_ties(torch.cat([rewards, reference], dim=1))
    return settled[:, :size], settled[:, size:]


def group_advantages(rewards: torch.Tensor, scale: str, *, offset: float = 0.0) -> torch.Tensor:
    """Return A = (r - mean) / std within each group; 0 where all rewards of a group are equal.

    Args:
        rewards: [P, G] float64, ties settled.
        scale: "std", or "none" for r - mean (Dr. GRPO).
        offset: added to the standard deviation.

    Returns:
        [P, G] float64.

    Source: GRPO (Shao et al., 2024), BLADE Eq. 2. The standard deviation is the sample's (divided by G - 1), as in TRL;
        without `offset` nothing is added to it, because groups without variance are found by comparison: advantages do
        not depend on the scale of the rewards.
    """
    constant = zero_variance(rewards)[:, None]  # [P, 1]
    if scale == "std":  # of rewards at most 1, whose squares neither underflow nor overflow
        largest = rewards.abs().amax(dim=1, keepdim=True).masked_fill(constant, 1.0)
        rewards, offset = rewards / largest, offset / largest  # type: ignore[assignment]
    centred = rewards - rewards.mean(dim=1, keepdim=True)  # [P, G]
    if scale == "std":
        centred = centred / (rewards.std(dim=1, keepdim=True).masked_fill(constant, 1.0) + offset)
    return centred.masked_fill(constant, 0.0)


def zero_variance(rewards: torch.Tensor) -> torch.Tensor:
    """Return [P] bool: groups whose settled rewards [P, G] are all equal, from which nothing can be learnt."""
    return rewards.amax(dim=1) == rewards.amin(dim=1)


def count_below(values: torch.Tensor, sample: torch.Tensor, *, ties: bool = False) -> torch.Tensor:
    """Count how many of a row's sample lie below each of its values.

    Args:
        values: [P, G], ties settled together with the sample's.
        sample: [P, M].
        ties: count what equals a value, too.

    Returns:
        [P, G] int64.
    """
    return torch.searchsorted(sample.sort(dim=1).values, values.contiguous(), right=ties)


def proxy_reward(
    rewards: torch.Tensor, reference: torch.Tensor | None, *, tau: float, best_of: int, ties: bool = False
) -> torch.Tensor:
    """Return (N - 1) log F(r) with F = (n_ref + tau * n_batch) / (M + tau * G).

    n_ref and n_batch are how many of the M reference and of the group's G rewards are strictly below r.

    Args:
        rewards: [P, G] float64.
        reference: [P, M] float64 rewards of the reference lists, or None for M = 0 ("no prior", BLADE Fig. 6).
        tau: weight of the group itself; 0 is static best-of-N (BLADE Eq. 7).
        best_of: N.
        ties: n_ref counts references that equal r, too (BLADE Eq. 5).

    Returns:
        [P, G] float64, at most 0.

    Source: BLADE (Chen et al., SIGIR 2026), Eq. 13-15; static: vBoN (Amini et al., 2024).
    Differs from the paper: a count of 0 (any reward at the minimum, such as the many zeros of ndcg) would give log 0.
        It is taken for half the smallest positive count: 0.5 min(1, tau), 0.5 for tau = 0, 0.5 tau for M = 0. So it
        lies below every positive one, the order is kept, and for M = 0 tau cancels.
    """
    if reference is None:
        reference = rewards.new_zeros(len(rewards), 0)
    rewards, reference = settle_with_references(rewards, reference)
    lists, size = reference.shape[1], rewards.shape[1]
    below = count_below(rewards, reference, ties=ties) + tau * count_below(rewards, rewards).to(rewards.dtype)  # [P, G]
    smallest = min([1.0] * (lists > 0) + [tau] * (tau > 0))
    return (best_of - 1) * torch.log(below.clamp(min=smallest / 2) / (lists + tau * size))


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
    # What stands in the padding may be anything, and infinity times 0 is no number: it is left out before it is raised.
    ratio = torch.exp((batch.logps - batch.old_logps).masked_fill(~batch.mask, 0.0))  # [N, T]
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
        kl_beta: beta; where it is 0 the KL is measured, and no part of the loss, however large it is.
        length_normalise: divide by T_i.

    Returns:
        The scalar loss and, with a reference, the figure `kl`.
    """
    metrics = {}
    if batch.reference_logps is not None:
        kl = k3_divergence(batch)  # [N, T]
        if kl_beta > 0:
            gain = gain - kl_beta * kl
        metrics["kl"] = float(kl.detach().sum() / batch.mask.sum().clamp(min=1))
    per_completion = gain.masked_fill(~batch.mask, 0.0).sum(dim=1)  # [N]
    if length_normalise:
        per_completion = per_completion / batch.mask.sum(dim=1).clamp(min=1)
    return -per_completion.mean(), metrics


def k3_divergence(batch: PolicyBatch) -> torch.Tensor:
    """[N, T] exp(ref - pi) - (ref - pi) - 1, an estimate of the KL to the reference policy; 0 in the padding.

    Source: Schulman, "Approximating KL divergence", 2020; GRPO (Shao et al., 2024), Eq. 4.
    """
    assert batch.reference_logps is not None
    difference = (batch.reference_logps - batch.logps).masked_fill(~batch.mask, 0.0)
    return torch.exp(difference) - difference - 1
