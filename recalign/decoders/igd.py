"""IGD: beam search that favours tokens which decide between items (next task)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch

from recalign.api import Decoder, Engine, Field, Predictions, Rescorer, Row, ValidContinuations, hookimpl
from recalign.decoders.rescored import SearchParams, search_titles

ROUNDING = 1e-12  # nats; information gains closer than that are alike


class Decisive(Rescorer):
    """log p * (1 - alpha * minmax(IG)), minmax over the valid tokens of a prefix: the more decisive, the less it costs.

    The entropy of a prefix is -sum of p ln p over the items below it, p an item's share of all training interactions;
    the information gain of a token is what it takes off that. Where all tokens gain alike nothing changes.

    Args:
        engine: titles and training frequencies.
        alpha: how much.
    """

    def __init__(self, engine: Engine, alpha: float) -> None:
        self.alpha = alpha
        counts = torch.from_numpy(engine.catalogue.popularity).double().to(engine.trie.item_at.device)
        share = counts / counts.sum().clamp_min(1)
        items = -torch.xlogy(share, share)
        self.entropies = torch.cat([engine.trie.sums(items), items])  # [nodes + I]

    def begin(self, rows: Sequence[Row]) -> Callable[[ValidContinuations], torch.Tensor]:
        """Rows do not matter."""
        return self.rescore

    def rescore(self, choices: ValidContinuations) -> torch.Tensor:
        """Rescore [N, C] log-probabilities."""
        gain = self.entropies[choices.nodes][:, None] - self.entropies[choices.children]
        least = gain.masked_fill(~choices.valid, torch.inf).amin(dim=1, keepdim=True)
        span = gain.masked_fill(~choices.valid, -torch.inf).amax(dim=1, keepdim=True) - least
        alike = span <= ROUNDING
        return choices.logps * (1 - self.alpha * torch.where(alike, 0, (gain - least) / span.masked_fill(alike, 1)))


class IgdParams(SearchParams):
    """Parameters of `igd`."""

    alpha: float = Field(
        0.2, ge=0, le=1, description="how much decisive tokens are favoured; 0 is an ordinary beam search"
    )


class Igd(Decoder):
    """IGD decoding: log-probabilities times 1 - alpha * minmax of the information gain; alpha 0 is `beam`.

    Source: Lin et al., "IGD", NeurIPS 2025.
    Differs from the official code: log-probabilities are renormalised over the valid tokens, where the code adds up
    those over the whole vocabulary, forced tokens included (`scoring=full`).
    """

    paper = "IGD (Lin et al., NeurIPS 2025)"
    tasks: ClassVar[frozenset[str]] = frozenset({"next"})

    Params = IgdParams

    def decode(self, engine: Engine, rows: Sequence[Row], size: int) -> Predictions:
        """Search `size` titles per row; fewer where the beam finds no more."""
        return search_titles(engine, rows, size, self.params, Decisive(engine, self.params.alpha))


@hookimpl
def recalign_decoder() -> type[Decoder]:
    """Return the plugin class to recalign."""
    return Igd
