"""What a prefix must score to stay in a beam search: its thresholds, depth by depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from recalign.decoding.beam_search import BeamSearch, BeamStep

if TYPE_CHECKING:
    from recalign.data.dataset import Row
    from recalign.decoding.engine import PolicyEngine


@dataclass(frozen=True)
class Thresholds:
    """What U searches of width B asked of a title's prefixes; D is one more than the longest title has tokens.

    A title's token at position d takes its prefix from d to d + 1 tokens. The prefix's log-probability, renormalised
    over valid tokens, then has to reach the score of the last beam, and that of the B-th title finished by then:
    nothing below it can be returned, for scores only fall. Where fewer than B are there, it is the last one's score.
    A title is among the B that are returned if and only if all its prefixes reach their thresholds.

    Args:
        going: [U, D] float64, for prefixes that go on; at depths without a step, as after the one before.
        ending: [U, D] float64, for titles that end there, which compete with that step's continuations and with all
            titles that are returned.
        decided: [U, D] bool, whether some prefix in the beam had several valid tokens.
    """

    going: torch.Tensor
    ending: torch.Tensor
    decided: torch.Tensor


@dataclass(frozen=True)
class ThresholdSearch:
    """A beam search over renormalised scores that records its thresholds.

    Args:
        engine: model, titles and costs.
        width: B.
    """

    engine: PolicyEngine
    width: int

    def run(self, rows: Sequence[Row], prompts: Sequence[np.ndarray]) -> tuple[torch.Tensor, ...]:
        """Return the items [P, B], and the three tensors of `Thresholds`."""
        shape, device = (len(rows), self.engine.trie.longest + 1), self.engine.trie.depth.device
        going = torch.full(shape, -torch.inf, dtype=torch.float64, device=device)
        ending, known = going.clone(), torch.zeros(shape, dtype=torch.bool, device=device)
        decided = known.clone()

        def watch(step: BeamStep) -> None:
            place = (step.prompts, step.depth)
            others = step.scores.masked_fill(step.ends, -torch.inf).sort(dim=1, descending=True).values
            last_beam, returned = _last(others[:, : self.width]), step.finished[:, -1]
            nothing = last_beam == -torch.inf
            going[place] = torch.where(nothing, _last(step.finished), torch.maximum(last_beam, returned))
            ending[place] = torch.maximum(_last(step.scores[:, : self.width]), returned)
            decided[place], known[place] = step.chosen, torch.ones_like(step.chosen)

        items, scores = BeamSearch(self.engine, self.width, "renormalised", 0.0, watch).run(rows, prompts)
        for depth in range(1, shape[1]):
            fresh = known[:, depth]
            going[:, depth] = torch.where(fresh, going[:, depth], going[:, depth - 1])
            ending[:, depth] = torch.where(fresh, ending[:, depth], going[:, depth])
        return items, going, torch.maximum(ending, scores[:, -1:]), decided


def _last(scores: torch.Tensor) -> torch.Tensor:
    """[P] the smallest finite one of scores [P, n] in falling order; -inf where there is none."""
    count = (scores > -torch.inf).sum(dim=1, keepdim=True)
    return scores.gather(1, (count - 1).clamp_min(0)).squeeze(1)
