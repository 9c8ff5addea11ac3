"""Beam-exact: as BEAR, but every prefix of the target against the threshold of an actual beam search."""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid

from recalign.api import AnswerBatch, TokenNeeds, TokenObjective, hookimpl
from recalign.objectives.bear import PruningParams
from recalign.objectives.msl import choices

ROUNDING = 1e-4
"""The search and the training pass are two: a prefix at the threshold may come out this much below itself."""


class BeamExact(TokenObjective):
    """L = L_sft + lambda * sum_t log sigmoid((log beta_t - log P_t) / xi), t over the steps of a beam search.

    P_t is the probability of the target's first t tokens, renormalised over valid tokens; beta_t is what a prefix had
    to score to stay in a beam search of width B with the policy as it is: the B-th best prefix of that step, or the
    B-th finished title where that is higher. It is a constant to the gradient. A step is a depth at which the target or
    some prefix in the beam has several valid tokens. The gradient is that of the cross-entropy with token weights

        w_s = 1 + (lambda / xi) * sum over steps t >= s of sigmoid((log P_t - log beta_t) / xi)

    so `normalise="weights"` is sum_s w_s CE_s / sum_s w_s with constant w_s; forced tokens are in neither sum. With a
    single decision it is `bear`.

    Source: Yang et al., "BEAR: Towards Beam-Search-Aware Optimization for Recommendation with Large Language Models",
    SIGIR 2026, Obj. 3.1, relaxed as Eq. 3.2-3.5 relax the paper's per-token condition.
    """

    Params = PruningParams
    paper = "Yang et al., SIGIR 2026, Obj. 3.1"
    tasks = frozenset({"next"})

    @property
    def needs(self) -> TokenNeeds:
        """The valid tokens, and the thresholds of a beam search of width B."""
        return TokenNeeds(valid_tokens=True, beam_width=self.params.beam)

    @property
    def holds_constant(self) -> bool:
        """The weights, where they normalise."""
        return bool(self.params.normalise == "weights")

    def loss(self, answers: AnswerBatch) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss, with the mean weight and the shares of steps and of targets that a beam would drop."""
        losses, margins, weights = self._weighed(answers)
        steps = answers.beam_thresholds > -torch.inf
        weight, xi = self.params.weight, self.params.temperature
        if self.params.normalise == "weights":
            value = (weights * losses).sum() / weights.sum().clamp_min(1.0)
        else:
            pruning = (logsigmoid(-margins / xi) * steps).sum()
            value = (losses.sum() + weight * pruning) / max(len(answers.labels), 1)
        dropped = steps & (margins < -ROUNDING)
        rows = int(answers.rows.max()) + 1 if len(answers.rows) else 1
        metrics = {
            "mean_weight": float(weights.sum()) / max(len(losses), 1),
            "pruned_share": float(dropped.sum()) / max(int(steps.sum()), 1),
            "pruned_targets": len(answers.rows[dropped].unique()) / rows,
        }
        return value, metrics

    def weight(self, answers: AnswerBatch) -> torch.Tensor | float:
        """Return the sum of the tokens' weights, where they normalise, else the number of answer tokens."""
        return self._weighed(answers)[2].sum() if self.params.normalise == "weights" else super().weight(answers)

    def _weighed(self, answers: AnswerBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Cross-entropy [R], log P - log beta [S] (0 where there is no step), and constant weights [R]."""
        assert answers.beam_thresholds is not None, "handed over where needs.beam_width is set"
        valid = choices(answers)
        losses = valid.cross_entropy()  # [R]
        tokens = answers.logits.new_zeros(len(answers.labels)).index_put((valid.positions,), losses)  # [S]
        prefixes = -_running_sums(tokens, answers.rows)  # log P_t
        steps = answers.beam_thresholds > -torch.inf
        margins = (prefixes - answers.beam_thresholds).masked_fill(~steps, 0.0)
        shares = torch.sigmoid(margins.detach() / self.params.temperature) * steps
        below = _running_sums(shares.flip(0), answers.rows.flip(0)).flip(0)  # [S] sum over the steps from here on
        return losses, margins, 1 + self.params.weight / self.params.temperature * below[valid.positions]


def _running_sums(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """[S] sums of values [S] from the beginning of each row to here; tokens of a row lie side by side."""
    sums = values.double().cumsum(0)
    lengths = rows.unique_consecutive(return_counts=True)[1]
    starts = (lengths.cumsum(0) - lengths).repeat_interleave(lengths)  # [S]
    before = torch.cat([sums.new_zeros(1), sums])[starts]
    return (sums - before).to(values.dtype)


@hookimpl
def recalign_objective() -> type[BeamExact]:
    """Return this plugin's class."""
    return BeamExact
