"""Attention among the tokens of one sequence, span by span, with gradients: nothing is padded, and no scores are kept.

What all prompts begin with lies first, then the rests of the prompts end to end, then their completions. What a span of
some dozens of tokens sees are a few runs of tokens: of a completion the beginning, the rest of its prompt, and what
stands before it of itself. Scores stay in a processor's cache, and are computed again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from recalign.decoding.attention_pieces import PIECE
from recalign.decoding.attention_rule import AttentionRule


@dataclass(frozen=True)
class Span:
    """Q neighbouring tokens, and what they see.

    Args:
        tokens: which of all tokens they are.
        seen: runs of tokens, the last of which is of n tokens; those before all of them see.
        bias: [Q, n] what is added to the scores of the last run's.
    """

    tokens: slice
    seen: tuple[slice, ...]
    bias: torch.Tensor


def spans_beside_prompts(common: int, rests: np.ndarray, completions: np.ndarray, owners: np.ndarray) -> list[Span]:
    """Cut what prompts begin with, the rests of the prompts, and completions, which lie in this order, into spans.

    Args:
        common: tokens at the beginning of all prompts.
        rests: [P] how many more each prompt has.
        completions: [A] their lengths.
        owners: [A] the prompt of each.
    """
    beginning, ends = slice(0, common), common + rests.cumsum()
    runs = [((), 0, common), *(((beginning,), end - size, end) for end, size in zip(ends, rests, strict=True))]
    spans = [
        _span((*before, slice(first, start)), np.zeros(stop - start, dtype=np.int64), start, start)
        for before, first, end in runs
        for start, stop in _cut(int(first), int(end))
    ]
    begins = common + int(rests.sum()) + completions.cumsum() - completions
    for group in _groups(completions, owners):
        owner = owners[group[0]]
        before = (beginning, slice(int(ends[owner] - rests[owner]), int(ends[owner])))
        begun, end = int(begins[group[0]]), int(begins[group[-1]] + completions[group[-1]])
        whose = np.repeat(group, completions[group])
        for start, stop in _cut(begun, end) if len(group) == 1 else [(begun, end)]:
            spans.append(_span(before, whose[: stop - begun], begun, start))
    return spans


def _span(before: tuple[slice, ...], whose: np.ndarray, begun: int, start: int) -> Span:
    """The tokens from `start` on of those from `begun` on; each sees those up to itself that are of the same."""
    which = np.arange(len(whose))
    seen = (whose[start - begun :, None] == whose) & (which[start - begun :, None] >= which)
    bias = torch.zeros(seen.shape).masked_fill_(torch.from_numpy(~seen), torch.finfo(torch.float32).min)
    runs = [slice(0, 0)]
    for run in (*before, slice(begun, begun + len(whose))):
        if run.start == runs[-1].stop:
            runs[-1] = slice(runs[-1].start, run.stop)
        elif run.stop > run.start:
            runs.append(run)
    return Span(slice(start, begun + len(whose)), tuple(runs[runs[0].stop == 0 :]), bias)


def _groups(completions: np.ndarray, owners: np.ndarray) -> Iterator[np.ndarray]:
    """Completions that follow each other, of one prompt, as many as are of `PIECE` tokens; at least one."""
    first = 0
    for index in range(1, len(owners) + 1):
        if index == len(owners) or owners[index] != owners[first] or completions[first : index + 1].sum() > PIECE:
            yield np.arange(first, index)
            first = index


def _cut(start: int, end: int) -> Iterator[tuple[int, int]]:
    for place in range(start, end, PIECE):
        yield place, min(end, place + PIECE)


def serves(rule: AttentionRule) -> bool:
    """Whether this computes what a rule says: scores that are scaled, and no more."""
    return rule.cap is None and rule.sinks is None


def attend_spans(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rule: AttentionRule, spans: list[Span]
) -> torch.Tensor:
    """Attend; gradients flow.

    Args:
        query: [Hq, M, D], Hq a multiple of H.
        key: [H, M, D].
        value: [H, M, D].
        rule: one that `serves` takes.
        spans: of all M tokens.

    Returns:
        [M, Hq, D].
    """
    return _Spans.apply(query, key, value, rule.scale, spans)


class _Spans(torch.autograd.Function):
    """Scores and sums are float32 at least, products in the dtype of what they are of."""

    @staticmethod
    def forward(
        context: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, spans: list[Span]
    ) -> torch.Tensor:
        out = query.new_empty(query.shape[1], query.shape[0], value.shape[2])
        for span in spans:
            weights = _weights(_by_head(query, span, len(key)) * scale, _seen(key, span), span)
            mixed = torch.bmm(weights.to(value.dtype), _seen(value, span))  # [H, Hq / H * Q, D]
            out[span.tokens] = mixed.view(query.shape[0], -1, value.shape[2]).transpose(0, 1)
        context.save_for_backward(query, key, value, out)
        context.scale, context.spans = scale, spans
        return out

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, out = context.saved_tensors
        of_query, of_key, of_value = torch.empty_like(query), _zeros(key), _zeros(value)
        of_out, out, heads = gradient.transpose(0, 1), out.transpose(0, 1), len(key)  # [Hq, M, D]
        for span in context.spans:
            queries, keys = _by_head(query, span, heads) * context.scale, _seen(key, span)
            weights, given = _weights(queries, keys, span), _by_head(of_out, span, heads)
            _add(of_value, span, torch.bmm(weights.to(given.dtype).transpose(1, 2), given))
            of_scores = _exact(torch.bmm(given, _seen(value, span).transpose(1, 2)))
            of_scores.sub_(_exact(given * _by_head(out, span, heads)).sum(dim=2, keepdim=True)).mul_(weights)
            of_scores = of_scores.to(key.dtype)
            _add(of_key, span, torch.bmm(of_scores.transpose(1, 2), queries))
            mine = torch.bmm(of_scores, keys).mul_(context.scale)
            of_query[:, span.tokens] = mine.view(len(query), -1, query.shape[2])
        return of_query, of_key.to(key.dtype), of_value.to(value.dtype), None, None


def _exact(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _zeros(tensor: torch.Tensor) -> torch.Tensor:
    """Zeros of a tensor's shape, in a dtype that many parts can be added in."""
    return torch.zeros(tensor.shape, dtype=torch.promote_types(tensor.dtype, torch.float32), device=tensor.device)


def _by_head(tensor: torch.Tensor, span: Span, heads: int) -> torch.Tensor:
    """[H, Hq / H * Q, D] what belongs to a span's tokens, of [Hq, M, D]."""
    return tensor[:, span.tokens].reshape(heads, -1, tensor.shape[2])


def _seen(tensor: torch.Tensor, span: Span) -> torch.Tensor:
    """[H, L, D] what belongs to the tokens that a span sees, of [H, M, D]."""
    parts = [tensor[:, run] for run in span.seen]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _weights(queries: torch.Tensor, keys: torch.Tensor, span: Span) -> torch.Tensor:
    """[H, Hq / H * Q, L] of scaled queries and what they see."""
    scores = _exact(torch.bmm(queries, keys.transpose(1, 2)))
    count, own = span.bias.shape
    scores.view(len(keys), -1, count, scores.shape[2])[..., scores.shape[2] - own :].add_(span.bias)
    return scores.softmax(dim=2)


def _add(total: torch.Tensor, span: Span, part: torch.Tensor) -> None:
    """Add what belongs to the tokens that a span sees."""
    done = 0
    for run in span.seen:
        total[:, run] += part[:, done : done + run.stop - run.start]
        done += run.stop - run.start
