"""Attention piece by piece, for processors whose caches hold the scores of some dozens of tokens.

A row's tokens are cut into pieces. What a piece computes ends at the last column that any of its tokens sees, and its
scores are read again, by the softmax and the product with the values, while they are still in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from recalign.decoding.attention_rule import AttentionRule
from recalign.decoding.key_values import Block

PIECE = 64
"""Tokens."""


@dataclass(frozen=True)
class Piece:
    """Q neighbouring tokens of one row.

    Args:
        row: of the keys and values.
        start: the first of them, of all tokens.
        begun: columns that all of them see.
        bias: [Q, n] what is added to the scores of the next n columns; none beyond is seen.
    """

    row: int
    start: int
    begun: int
    bias: torch.Tensor


def causal_pieces(sizes: Sequence[int], first: int, begun: int) -> list[Piece]:
    """Cut rows of tokens that see what stands before them, and themselves.

    Args:
        sizes: tokens of each row, which follow each other.
        first: the first of the rows.
        begun: columns that stand before the tokens in every row.
    """
    later = torch.full((PIECE, PIECE), torch.finfo(torch.float32).min).triu_(1)
    pieces, done = [], 0
    for row, size in enumerate(sizes, first):
        for start, count in _cut(size):
            pieces.append(Piece(row, done + start, begun + start, later[:count, :count]))
        done += size
    return pieces


def seeing_pieces(rows: torch.Tensor, lengths: torch.Tensor, seen: torch.Tensor, bias: torch.Tensor) -> list[Piece]:
    """Cut rows of tokens that see the beginning of their row, and some of what follows it.

    Args:
        rows: [M] row of each token, ascending.
        lengths: [R] how much of a row all its tokens see.
        seen: [M, U] bool, which of the next U columns each token sees.
        bias: [M, U] the same as an additive mask.
    """
    present, sizes = torch.unique_consecutive(rows, return_counts=True)
    last = (F.pad(seen, (1, 0)) * torch.arange(seen.shape[1] + 1)).amax(dim=1)  # [M]
    pieces, done = [], 0
    for row, size, length in zip(present.tolist(), sizes.tolist(), lengths[present].tolist(), strict=True):
        for start, count in _cut(size):
            tokens = slice(done + start, done + start + count)
            pieces.append(Piece(row, tokens.start, length, bias[tokens, : int(last[tokens].max())]))
        done += size
    return pieces


def attend_pieces(pieces: Sequence[Piece], query: torch.Tensor, held: Block, rule: AttentionRule) -> torch.Tensor:
    """Attend piece by piece; no gradients.

    Args:
        pieces: of all M tokens.
        query: [Hq, M, D], Hq a multiple of H.
        held: keys [R, H, L, D] and values [R, H, L, D'].
        rule: scales and caps the scores.

    Returns:
        [M, Hq, D'].
    """
    keys, values = held
    (heads, size), repeat = keys.shape[1::2], query.shape[0] // keys.shape[1]
    out = query.new_empty(query.shape[1], query.shape[0], values.shape[3])
    for piece in pieces:
        count, end = piece.bias.shape[0], piece.begun + piece.bias.shape[1]
        tokens = slice(piece.start, piece.start + count)
        queries = query[:, tokens].reshape(heads, -1, size) * rule.scale
        scores = torch.bmm(queries, keys[piece.row, :, :end].transpose(1, 2)).float()  # [H, repeat * Q, end]
        scores = rule.capped(scores)
        scores.view(heads, repeat, count, end)[..., piece.begun :].add_(piece.bias)
        mixed = torch.bmm(rule.weights(scores, heads).to(values.dtype), values[piece.row, :, :end])
        out[tokens] = mixed.view(heads * repeat, count, -1).transpose(0, 1)
    return out


def _cut(size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, size, PIECE):
        yield start, min(PIECE, size - start)
