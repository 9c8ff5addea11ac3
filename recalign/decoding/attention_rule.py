"""How an architecture's attention makes weights of the products of queries and keys: scaled, capped, with sinks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class AttentionRule:
    """Weights softmax(cap * tanh(scale * q.k / cap)), some of whose mass may go to a sink that has no value.

    Args:
        scale: factor of the products.
        cap: scores are squashed by tanh to stay below it (Gemma 2); None: they are not.
        sinks: [Hq] the score of a place without a value that every query of a head sees (gpt-oss); None: there is none.
    """

    scale: float
    cap: float | None = None
    sinks: torch.Tensor | None = None

    def capped(self, scores: torch.Tensor) -> torch.Tensor:
        """Return scaled products, of any shape, as they are compared."""
        return scores if self.cap is None else torch.tanh(scores / self.cap) * self.cap

    def weights(self, scores: torch.Tensor, heads: int) -> torch.Tensor:
        """Return the softmax over the last dimension; where there are sinks, it sums to less than 1.

        Args:
            scores: [n * H, Hq / H * Q, L] float32, capped and masked; queries of one head follow each other.
            heads: H.
        """
        if self.sinks is None:
            return scores.softmax(dim=-1)
        by_group = self.sinks.float().view(heads, -1)  # [H, Hq / H]
        sinks = by_group.repeat_interleave(scores.shape[1] // by_group.shape[1], dim=1)
        sinks = sinks.repeat(scores.shape[0] // heads, 1)[..., None]  # [n * H, Hq / H * Q, 1]
        return torch.cat([scores, sinks], dim=-1).softmax(dim=-1)[..., :-1]

    def left_by_sinks(self, mixed: torch.Tensor, mass: torch.Tensor) -> torch.Tensor:
        """Return mixed values [M, Hq, D] of a softmax without sinks, less what those take.

        Args:
            mixed: the values.
            mass: [M, Hq, 1] log of the sum of exp(score).
        """
        if self.sinks is None:
            return mixed
        return mixed * torch.sigmoid(mass - self.sinks.float()[:, None]).to(mixed.dtype)

    def attend(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        seen: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return attention [R, Hq, Q, D] of queries [R, Hq, Q, D] to keys and values [R, H, L, D]; gradients flow.

        Args:
            queries: Hq is a multiple of H.
            keys: of R rows.
            values: of R rows.
            seen: bool [R or 1, 1, Q, L], what each query sees; None: causal, with Q = L.
        """
        gqa = queries.shape[1] != keys.shape[1]
        if self.cap is None and self.sinks is None:
            return F.scaled_dot_product_attention(
                queries, keys, values, attn_mask=seen, is_causal=seen is None, scale=self.scale, enable_gqa=gqa
            )
        if gqa:
            repeat = queries.shape[1] // keys.shape[1]
            keys, values = (part.repeat_interleave(repeat, dim=1) for part in (keys, values))
        if seen is None:
            seen = torch.ones(queries.shape[2], keys.shape[2], dtype=torch.bool, device=queries.device).tril()
        scores = self.capped((queries * self.scale @ keys.transpose(2, 3)).float())
        scores = scores.masked_fill(~seen, torch.finfo(torch.float32).min)
        weights = self.weights(scores.flatten(0, 1), queries.shape[1]).view_as(scores)
        return weights.to(values.dtype) @ values
