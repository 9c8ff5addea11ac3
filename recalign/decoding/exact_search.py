"""Exact top-K titles: best-first search over the trie, many prefixes of many prompts at a time.

A prefix's log-probability bounds that of every title below it. So once K titles are known that no open prefix can beat,
they are the true top K, and the search stops with a proof. Opening the best B prefixes of each prompt at a time instead
of the one best makes the model's batches large; it may open some that turn out not to have been needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from recalign.api import INVALID, Rescorer, Scoring
from recalign.decoding.hypotheses import Hypotheses, HypothesisScorer
from recalign.decoding.shared_attention import group_sizes

if TYPE_CHECKING:
    from recalign.data.dataset import Row
    from recalign.decoding.engine import PolicyEngine


@dataclass(frozen=True)
class ExactSearch:
    """The settings of an exact search.

    Args:
        engine: model, titles and costs.
        size: K.
        scoring: as in beam search.
        breadth: B, prefixes of a prompt opened at a time; changes the speed only.
        rescorer: as in beam search; what it returns must not exceed 0, or the bound does not hold.
    """

    engine: PolicyEngine
    size: int
    scoring: Scoring
    breadth: int
    rescorer: Rescorer | None = None

    def run(
        self, rows: Sequence[Row], prompts: Sequence[np.ndarray]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return items and scores [P, K], best first (INVALID and -inf beyond the catalogue), and nodes opened [P]."""
        search = _Frontier(self, rows, prompts)
        while len(search.live):
            search.step()
        return search.items, search.best, search.opened


class _Frontier:
    """The open prefixes of a batch of prompts [P, F], those of settled prompts left out."""

    def __init__(self, how: ExactSearch, rows: Sequence[Row], prompts: Sequence[np.ndarray]) -> None:
        self.how = how
        self.scorer = HypothesisScorer(how.engine, rows, prompts, how.scoring, how.rescorer)
        device = self.scorer.prompt_logits.device
        self.live = torch.arange(len(prompts), device=device)
        roots = Hypotheses.roots(len(prompts), device)
        self.open = roots if self.scorer.full else self._at_decisions(roots)  # full: the first token has to be scored
        self.items = torch.full((len(prompts), how.size), INVALID, dtype=torch.long, device=device)
        self.best = torch.full(self.items.shape, -torch.inf, dtype=torch.float64, device=device)
        self.opened = torch.zeros(len(prompts), dtype=torch.long, device=device)

    def step(self) -> None:
        """Open the best prefixes of every prompt, sort what lies below them, and close the prompts that are settled."""
        count = len(self.live)
        _, index = self.open.score.topk(min(self.how.breadth, self.open.score.shape[1]))
        chosen = self.open.gather(index)
        self.opened[self.live] += (chosen.score > -torch.inf).sum(dim=1)
        rest = replace(self.open, score=self.open.score.scatter(1, index, -torch.inf))
        prompt = torch.arange(count, device=index.device).repeat_interleave(index.shape[1])
        flat = Hypotheses(*(tensor.flatten() for tensor in chosen.tensors()))
        choices, logps, flat = self.scorer.score(prompt, flat)
        rows, columns = torch.nonzero(choices.valid, as_tuple=True)
        token = choices.tokens[rows, columns]
        below = replace(flat.take(rows), score=flat.score[rows] + logps[rows, columns])
        ends = token == self.scorer.constraint.end
        child = self.scorer.constraint.child(below.node, token)
        below = self._at_decisions(replace(below, node=torch.where(ends, below.node, child)))
        if not self.scorer.full:  # a title's remaining tokens add nothing: it is known where its chain begins
            trie = self.scorer.trie
            ends = ends | (trie.child_start[below.node] == trie.child_start[below.node + 1])
        owner = prompt[rows]
        self._finish(_by_prompt(below, owner, ends, count))
        self._push(rest, _by_prompt(below, owner, ~ends, count))

    def _at_decisions(self, hypotheses: Hypotheses) -> Hypotheses:
        return replace(hypotheses, node=self.scorer.trie.decision[hypotheses.node].long())

    def _finish(self, found: Hypotheses) -> None:
        """Merge new titles [P, E] into the K best."""
        items = self.scorer.trie.item_at[found.node].long().masked_fill(found.score == -torch.inf, INVALID)
        best, index = torch.cat([self.best[self.live], found.score], dim=1).topk(self.how.size)
        self.best[self.live] = best
        self.items[self.live] = torch.cat([self.items[self.live], items], dim=1).gather(1, index)

    def _push(self, rest: Hypotheses, new: Hypotheses) -> None:
        """Keep the open prefixes [P, F] that can still beat the K-th title, and the prompts that have any."""
        pairs = zip(rest.tensors(), new.tensors(), strict=True)
        merged = Hypotheses(*(torch.cat(pair, dim=1) for pair in pairs))
        hope = merged.score > self.best[self.live, -1:]
        merged = replace(merged, score=merged.score.masked_fill(~hope, -torch.inf))
        width = max(1, int(hope.sum(dim=1).max()))
        self.open = merged.gather(merged.score.topk(width).indices)
        alive = torch.nonzero(hope.any(dim=1)).flatten()
        if len(alive) < len(self.live):
            self.live, self.open = self.live[alive], self.open.take(alive)
            self.scorer.retain(alive)
        if len(self.live):
            self.scorer.prune(self.open)


def _by_prompt(hypotheses: Hypotheses, owner: torch.Tensor, mine: torch.Tensor, count: int) -> Hypotheses:
    """Lay some of A prefixes (bool [A]) out as rows of P prompts, [P, widest]; owners [A] ascend."""
    chosen = torch.nonzero(mine).flatten()
    owner = owner[chosen]
    sizes = group_sizes(owner, count)
    width = int(sizes.max())
    place = owner * width + torch.arange(len(owner), device=owner.device) - (sizes.cumsum(0) - sizes)[owner]

    def padded(tensor: torch.Tensor, fill: float) -> torch.Tensor:
        empty = torch.full((count * width,), fill, dtype=tensor.dtype, device=tensor.device)
        return empty.index_copy(0, place, tensor[chosen]).view(count, width)

    fills = (0, -torch.inf, -1, 0)
    return Hypotheses(*(padded(tensor, fill) for tensor, fill in zip(hypotheses.tensors(), fills, strict=True)))
