"""Hypotheses, prefixes of titles scored by the model: what beam search and exact search share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from recalign.api import Rescorer, Scoring, ValidContinuations
from recalign.decoding.constraint import ValidNext
from recalign.decoding.scoring import masked_log_softmax

if TYPE_CHECKING:
    from recalign.data.dataset import Row
    from recalign.decoding.engine import PolicyEngine

"""Log-probabilities over the trie's valid tokens (which MSL and BEAR train), or over the whole vocabulary (as
transformers' `prefix_allowed_tokens_fn` decodes)."""

LOGITS = 2**26
"""Logits over the vocabulary that are held at once (256 MB in float32), and those of one prefix at most."""
WORTH_COPYING = 3
"""Rows of the head are copied, and only they multiplied, where that is at most every third."""


@dataclass(frozen=True)
class Hypotheses:
    """Prefixes of titles, each a trie node below a prompt; tensors of one shape.

    Args:
        node: trie node.
        score: log-probability of the tokens that the model has been asked about, float64; -inf: no prefix.
        slot: the slot of its last cached token in the KV cache, -1 for none.
        cached: how many of its tokens have keys and values in the cache.
    """

    node: torch.Tensor
    score: torch.Tensor
    slot: torch.Tensor
    cached: torch.Tensor

    @classmethod
    def roots(cls, count: int, device: torch.device) -> Hypotheses:
        """The empty prefix of each prompt: [P, 1]."""
        zero = torch.zeros(count, 1, dtype=torch.long, device=device)
        return cls(zero, zero.double(), zero - 1, zero)

    def tensors(self) -> tuple[torch.Tensor, ...]:
        """All of them, in the order of the constructor."""
        return self.node, self.score, self.slot, self.cached

    def gather(self, index: torch.Tensor) -> Hypotheses:
        """Choose columns [P, k] of each prompt."""
        return Hypotheses(*(tensor.gather(1, index) for tensor in self.tensors()))

    def take(self, index: torch.Tensor) -> Hypotheses:
        """Choose along the first dimension."""
        return Hypotheses(*(tensor[index] for tensor in self.tensors()))


class HypothesisScorer:
    """Scores hypotheses of a batch of prompts; the keys and values of their tokens are cached as trees.

    Args:
        engine: model, titles and exclusions.
        rows: [P].
        prompts: [P] token ids.
        scoring: which log-probabilities.
        rescorer: changes those of tokens that are a choice.
    """

    def __init__(
        self,
        engine: PolicyEngine,
        rows: Sequence[Row],
        prompts: Sequence[np.ndarray],
        scoring: Scoring,
        rescorer: Rescorer | None = None,
    ) -> None:
        self.constraint = engine.constraint(1)
        self.trie, self.full = self.constraint.trie, scoring == "full"
        self.state = self.constraint.start(engine.excluded_by(rows))  # [P]
        self.cache, self.prompt_logits = engine.begin(rows, prompts, 1, branching=True)  # [P, V]
        self.rows = torch.arange(len(rows), device=self.prompt_logits.device)  # [P] which of the rows each prompt is
        self.segments = self.rows  # [P] of the cache
        self.rescore = rescorer.begin(rows) if rescorer is not None else None
        self.forced_weight = rescorer.forced_weight if rescorer is not None else 1.0

    def retain(self, prompts: torch.Tensor) -> None:
        """Forget all prompts but these (indices); the cache, which has to copy, only once the others are many."""
        self.state, self.prompt_logits, self.rows = (
            self.state.take(prompts),
            self.prompt_logits[prompts],
            self.rows[prompts],
        )
        self.segments = self.segments[prompts]
        if 0 < 2 * len(self.segments) <= self.cache.segments:
            self.cache.retain(self.segments)
            self.segments = torch.arange(len(self.segments), device=self.segments.device)

    def prune(self, hypotheses: Hypotheses) -> None:
        """Forget all cached tokens but those of these hypotheses [P, b]; those of score -inf are none."""
        slots = torch.full((self.cache.segments, hypotheses.slot.shape[1]), -1, device=hypotheses.slot.device)
        slots[self.segments] = hypotheses.slot.masked_fill(hypotheses.score == -torch.inf, -1)
        self.cache.prune(slots)

    def score(self, prompt: torch.Tensor, hypotheses: Hypotheses) -> tuple[ValidNext, torch.Tensor, Hypotheses]:
        """Score the valid next tokens of A hypotheses.

        Args:
            prompt: [A] the prompt of each.
            hypotheses: [A]; those of score -inf have no next tokens.

        Returns:
            The choices, their log-probabilities [A, C] (float64, -inf at padding), and the hypotheses with
            their tokens cached. With the full vocabulary their scores now include their forced tokens.
        """
        choices = self.constraint.valid_tokens(replace(self.state.take(prompt), node=hypotheses.node))
        choices = replace(choices, valid=choices.valid & (hypotheses.score > -torch.inf)[:, None])
        logps = torch.zeros(choices.valid.shape, dtype=torch.float64, device=choices.valid.device)
        rows = torch.nonzero(choices.counts > (0 if self.full else 1)).flatten()
        if len(rows):
            scores, hypotheses = self._forward(prompt, hypotheses, rows, choices.tokens[rows])
            logps[rows] = (scores if self.full else masked_log_softmax(scores, choices.valid[rows])).double()
        if self.forced_weight != 1:
            logps = torch.where((choices.counts == 1)[:, None], logps * self.forced_weight, logps)
        logps = logps.masked_fill(~choices.valid, -torch.inf)
        if self.rescore is not None and len(rows := torch.nonzero(choices.counts > 1).flatten()):
            node, several = hypotheses.node[rows], ValidNext(choices.tokens[rows], choices.valid[rows])
            children = self.constraint.reached(node, several)
            asked = ValidContinuations(self.rows[prompt[rows]], node, children, several.valid, logps[rows])
            logps[rows] = self.rescore(asked).masked_fill(~several.valid, -torch.inf)
        return choices, logps, hypotheses

    def path(self, node: torch.Tensor, start: torch.Tensor, width: int) -> torch.Tensor:
        """The nodes on the way to `node` [A], from depth `start` + 1 on: [A, width], any node beyond its end."""
        trie = self.trie
        step = (trie.path_start[trie.item_of_rank[trie.lo[node].long()]] + start)[:, None]
        step = step + torch.arange(width, device=node.device)
        return trie.path_node[step.clamp_max(len(trie.path_node) - 1)].long()

    def _forward(
        self, prompt: torch.Tensor, hypotheses: Hypotheses, rows: torch.Tensor, wanted: torch.Tensor
    ) -> tuple[torch.Tensor, Hypotheses]:
        """Encode some hypotheses (indices [R]) to their ends, and score some tokens after each.

        Returns:
            Logits [R, C] of the wanted tokens, log-probabilities with the full vocabulary. And the prefixes, whose
            scores then include the tokens of which the model had not been asked.
        """
        counts = self.trie.depth[hypotheses.node[rows]].long() - hypotheses.cached[rows]
        if not counts.any():  # the root: the prompts' own logits
            return self._normalised(self.prompt_logits[prompt[rows]]).gather(1, wanted), hypotheses
        passes = [(rows, counts, wanted)]
        if self.full:
            last = (counts.cumsum(0) - 1) // max(1, LOGITS // self.prompt_logits.shape[1])
            sizes = torch.unique_consecutive(last, return_counts=True)[1].tolist()
            passes = list(zip(*(tensor.split(sizes) for tensor in passes[0]), strict=True))
        parts = []
        for asked in passes:
            part, hypotheses = self._pass(prompt, hypotheses, *asked)
            parts.append(part)
        return torch.cat(parts), hypotheses

    def _pass(
        self,
        prompt: torch.Tensor,
        hypotheses: Hypotheses,
        rows: torch.Tensor,
        counts: torch.Tensor,
        wanted: torch.Tensor,
    ) -> tuple[torch.Tensor, Hypotheses]:
        """As `_forward`, `counts` [R] tokens each, in one pass."""
        node, cached, slot = hypotheses.node[rows], hypotheses.cached[rows], hypotheses.slot[rows]
        longest = int(counts.max())
        tokens = self.trie.child_token[self.path(node, cached, longest) - 1].long()
        every = self.full and longest > 1
        columns, wanted = (None, wanted) if self.full else _columns(wanted, self.prompt_logits.shape[1])
        segments = self.segments[prompt[rows]]
        logits, slots = self.cache.extend(segments, slot, tokens, counts, every=every, columns=columns)
        logits = self._normalised(logits)
        score = hypotheses.score
        if every:
            ends = counts.cumsum(0) - 1
            inner = torch.ones(len(logits), dtype=torch.bool, device=rows.device).index_fill_(0, ends, False)
            # of each hypothesis's new tokens the first is in the score already
            after = torch.arange(1, tokens.shape[1], device=rows.device) < counts[:, None]
            logps = logits[torch.nonzero(inner).flatten(), tokens[:, 1:][after]]
            score = score.index_add(0, rows.repeat_interleave(counts - 1), logps.double() * self.forced_weight)
            logits = logits[ends]
        slot = hypotheses.slot.index_copy(0, rows, slots)
        found = Hypotheses(hypotheses.node, score, slot, hypotheses.cached.index_copy(0, rows, cached + counts))
        return logits.gather(1, wanted), found

    def _normalised(self, logits: torch.Tensor) -> torch.Tensor:
        """Turn logits, which are not needed any more, into what is scored."""
        logits = logits.float()
        if self.full:  # in place: a second array of this size costs as much as the head's product
            torch.log_softmax(logits, dim=1, out=logits)
        return logits


def _columns(wanted: torch.Tensor, vocabulary: int) -> tuple[torch.Tensor | None, torch.Tensor]:
    """The columns of the head that some tokens need, or None for all, and where the tokens [R, C] are among them."""
    used = torch.zeros(vocabulary, dtype=torch.bool, device=wanted.device).index_fill_(0, wanted.flatten(), True)
    columns = torch.nonzero(used).flatten()
    if WORTH_COPYING * len(columns) > vocabulary:
        return None, wanted
    return columns, (used.cumsum(0) - 1)[wanted]
