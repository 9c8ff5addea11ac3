"""Uncertainty: bootstrap intervals, paired differences with Wilcoxon's signed-rank test, Holm's correction.

The unit of resampling is the user: the rows of one user stand or fall together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

RESAMPLES = 2000
CHUNK = 4_000_000  # draws held in memory at a time
EXACT = 50
"""Users with a difference up to whom the signed-rank test is exact."""


@dataclass(frozen=True)
class Interval:
    """A mean with its 95% percentile-bootstrap interval; all NaN-free, None where there was no value.

    Args:
        mean: mean over the values.
        low: 2.5% quantile of the resampled means.
        high: 97.5% quantile.
        n: number of values.
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int

    def as_dict(self) -> dict[str, float | int | None]:
        """Return what JSON files hold of it."""
        return asdict(self)


@dataclass(frozen=True)
class Paired:
    """b - a over the same rows.

    Args:
        difference: mean difference with its interval.
        p: two-sided p of Wilcoxon's signed-rank test over the users that differ; 1.0 where none does.
        wins: users with b > a.
        losses: users with b < a.
        ties: users with b = a, whom the test leaves out.
    """

    difference: Interval
    p: float
    wins: int
    losses: int
    ties: int

    @property
    def tie_share(self) -> float | None:
        """Share of the users with b = a; None where there is no user."""
        users = self.wins + self.losses + self.ties
        return self.ties / users if users else None

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON files hold of it."""
        return {**asdict(self), "tie_share": self.tie_share}


def bootstrap_interval(
    values: np.ndarray, seed: int = 0, *, users: np.ndarray | None = None, resamples: int = RESAMPLES
) -> Interval:
    """Mean over rows and its 95% percentile-bootstrap interval.

    Args:
        values: [n] float64, finite.
        seed: of the resampling.
        users: [n] whose value it is: users are resampled, with all their rows. By default every row is its own user.
        resamples: number of bootstrap samples.
    """
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        return Interval(None, None, None, 0)
    sums, counts = _by_user(values, users)
    low, high = np.quantile(_resampled_means(sums, counts, seed, resamples), [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high), len(values))


def paired(
    before: np.ndarray,
    after: np.ndarray,
    seed: int = 0,
    *,
    users: np.ndarray | None = None,
    resamples: int = RESAMPLES,
) -> Paired:
    """Compare two systems on the same rows; users whose values are equal are left out of the test, and counted.

    Args:
        before: [n] float64.
        after: [n] float64, the same rows in the same order.
        seed: of the resampling.
        users: [n] as in `bootstrap_interval`; the test is over each user's mean difference.
        resamples: number of bootstrap samples.

    Source: Wilcoxon, Biometrics Bulletin 1945, the classic form: zero differences are dropped before ranking.
    """
    differences = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    interval = bootstrap_interval(differences, seed, users=users, resamples=resamples)
    sums, counts = _by_user(differences, users)
    # Sums of equal parts in another order differ in the last bits; ranks must not see that, whatever the scale.
    largest = np.abs([before, after]).max(initial=0.0)
    means = np.round(sums / counts / largest, 12) if largest > 0 else sums
    return Paired(
        interval, signed_rank_p(means), int((means > 0).sum()), int((means < 0).sum()), int((means == 0).sum())
    )


def signed_rank_p(differences: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test over the differences that are not 0; 1.0 where there is none.

    Of up to 50 the exact one: the share of all signs that give rank sums as uneven. Equal differences, which metrics
    such as hit@k have and for which scipy's exact distribution is not made, share their ranks. Of more, the normal
    approximation.

    Args:
        differences: [n].

    Source: Streitberg and Roehmel, Statistical Software Newsletter 1986 (the shift algorithm).
    """
    from scipy.stats import rankdata, wilcoxon

    found = differences[differences != 0]
    if not len(found):
        return 1.0
    if len(found) > EXACT:
        return float(wilcoxon(found, method="asymptotic").pvalue)
    ranks = np.rint(2 * rankdata(np.abs(found))).astype(np.int64)  # doubled: shared ones are halves
    ways = np.zeros(ranks.sum() + 1)  # how many choices of signs give each sum of the positive ones
    ways[0] = 1.0
    for rank in ranks:
        ways[rank:] += ways[:-rank].copy()
    above = ranks[found > 0].sum()
    return float(min(1.0, 2 * ways[: min(above, len(ways) - 1 - above) + 1].sum() / ways.sum()))


def holm(pvalues: Sequence[float]) -> list[float]:
    """Adjust p-values for their number, in their order (Holm, Scandinavian Journal of Statistics 1979)."""
    values = np.asarray(pvalues, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted.tolist()


def _by_user(values: np.ndarray, users: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of each user's values: float64 [U], [U]."""
    if users is None:
        return values, np.ones(len(values))
    _, codes = np.unique(np.asarray(users), return_inverse=True)
    return np.bincount(codes, weights=values), np.bincount(codes).astype(np.float64)


def _resampled_means(sums: np.ndarray, counts: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Means over rows of bootstrap samples of users: float64 [resamples]."""
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK // len(sums))
    means = np.empty(resamples)
    for start in range(0, resamples, step):
        drawn = rng.integers(len(sums), size=(min(step, resamples - start), len(sums)), dtype=np.int32)
        means[start : start + step] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return means
