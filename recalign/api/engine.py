"""The engine as plugins see it: a model bound to a catalogue, which samples, decodes greedily and searches titles.

`recalign.decoding.engine.PolicyEngine` is the one that the commands make; whatever has these methods may replace it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from recalign.data.catalogue import Catalogue
from recalign.data.dataset import Row

if TYPE_CHECKING:
    import torch

    from recalign.api.decoders import Rescorer

Scoring = Literal["renormalised", "full"]
"""Log-probabilities of titles: renormalised over the valid tokens, or over the full vocabulary."""


@dataclass(frozen=True)
class Completions:
    """N = P * G completions, group by group, on the CPU.

    Args:
        tokens: [N, T] int64, padded with the end token.
        lengths: [N] int64, the end token included.
        items: [N, K] int64 item indices; INVALID where free text names no item.
        logps: [N, T] float32 log-probability of each token under the distribution that was sampled from (after
            repetition penalty, temperature and the constraint, renormalised); 0 at forced tokens and padding.
        mask: [N, T] bool, True on the completion's tokens, forced ones included.
    """

    tokens: torch.Tensor
    lengths: torch.Tensor
    items: torch.Tensor
    logps: torch.Tensor
    mask: torch.Tensor


class TitleTree(Protocol):
    """The catalogue's titles as a prefix tree of token ids; node 0 is the root.

    Attributes:
        nodes: how many nodes there are.
        item_at: [nodes] the item whose title ends at a node, or -1.
        path_start: [I + 1] where each item's path begins in `path_node`.
        path_node: [tokens of all titles] the nodes that a title passes, its last one included, the root not.
    """

    @property
    def nodes(self) -> int:
        """How many nodes there are."""

    @property
    def item_at(self) -> torch.Tensor:
        """[nodes] the item whose title ends at a node, or -1."""

    @property
    def path_start(self) -> torch.Tensor:
        """[I + 1] where each item's path begins in `path_node`."""

    @property
    def path_node(self) -> torch.Tensor:
        """The nodes that each title passes, title by title."""

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """Add up a value per item, [..., I], over the items below every node: [..., nodes]."""

    def log_sums(self, values: torch.Tensor) -> torch.Tensor:
        """The same for logarithms of values: logsumexp over the items below every node."""


class Engine(Protocol):
    """A model bound to a catalogue.

    Attributes:
        catalogue: the items.
        task: name of the task that the model was trained for.
        list_length: titles of a response that it was trained to write.
        seed: what decoders sample with.
        policy: the model with its tokenizer, title tokens and prompter.
        cost: counters of what was spent.
        trie: the catalogue's titles as a tree.
    """

    catalogue: Catalogue
    task: str
    list_length: int
    seed: int
    policy: Any
    cost: Any

    @property
    def trie(self) -> TitleTree:
        """The catalogue's titles as a tree."""

    def excluded(self, row: Row) -> np.ndarray:
        """Return the items that a row must not be recommended: what its user had, and all but its candidates."""

    def excluded_by(self, rows: Sequence[Row]) -> list[np.ndarray]:
        """Return `excluded` of each row."""

    def sample(
        self,
        rows: Sequence[Row],
        *,
        group_size: int,
        list_length: int,
        temperature: float = 1.0,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        epoch: int = 0,
        constrained: bool = True,
    ) -> Completions:
        """Sample G lists of K titles for each of P rows, reproducibly whatever else is in the batch."""

    def greedy(
        self, rows: Sequence[Row], *, list_length: int, repetition_penalty: float = 1.0, constrained: bool = True
    ) -> Completions:
        """Take the most probable token at every step; one list per row."""

    def beam(
        self,
        rows: Sequence[Row],
        *,
        width: int,
        size: int,
        scoring: Scoring = "renormalised",
        length_penalty: float = 0.0,
        rescorer: Rescorer | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Search the best single titles of each of U rows with B beams: items [U, K] and scores [U, K], best first."""

    def exact(
        self,
        rows: Sequence[Row],
        *,
        size: int,
        scoring: Scoring = "renormalised",
        breadth: int | None = None,
        rescorer: Rescorer | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Find the true top K titles of each of U rows: items and scores [U, K], and nodes opened [U]."""

    def hidden(
        self,
        rows: Sequence[Row],
        responses: Sequence[np.ndarray] | None = None,
        *,
        owners: Sequence[int] | np.ndarray | None = None,
        positions: Sequence[np.ndarray] | None = None,
        gradients: bool = False,
    ) -> torch.Tensor:
        """Return the model's last hidden states after the prompts of U rows, or at tokens of responses that follow.

        Prompts are encoded once however many responses follow, where the model allows it.

        Args:
            rows: U rows.
            responses: [N] token ids, one or more each; None: nothing follows.
            owners: [N] which row's prompt each response follows; None: one response per row, in their order.
            positions: [N] places in each response, E in all; None: each response's last token.
            gradients: let them flow; dropout is then as the model's mode says.

        Returns:
            [U, H] at the prompts' last tokens, or [E, H] response by response, on the model's device.
        """
