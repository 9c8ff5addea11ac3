"""The catalogue's titles as a prefix tree of token ids, held in flat tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from recalign.errors import UserError

if TYPE_CHECKING:
    from recalign.text.item_tokens import TitleTokens


@dataclass(frozen=True)
class TitleTrie:
    """A prefix tree in CSR form; node 0 is the root.

    Nodes are numbered level by level and, within a level, in lexicographic order of their prefix. So the children of a
    node stand side by side, and the edge `e` leads to node `e + 1`, which needs no memory. Leaves are ranked in
    depth-first order, so that the items below a node are the ranks `[lo, hi)`. A title that is a token prefix of
    another ends at a node that has children; its rank comes before theirs.

    Args:
        child_start: [nodes + 1] the edges of node n are `child_start[n]:child_start[n + 1]`, sorted by token.
        child_token: [edges] token of each edge.
        item_at: [nodes] the item whose title ends here, or -1.
        lo: [nodes] first leaf rank below a node.
        hi: [nodes] one past the last.
        depth: [nodes] tokens from the root.
        decision: [nodes] the first node at or below this one that is no mere link of a chain: it has several children,
            none, or a title ends there.
        item_of_rank: [I].
        rank_of_item: [I].
        path_start: [I + 1] where each item's path begins in `path_node`.
        path_node: [tokens of all titles] the nodes that a title passes, its last one included, the root not.
    """

    child_start: torch.Tensor
    child_token: torch.Tensor
    item_at: torch.Tensor
    lo: torch.Tensor
    hi: torch.Tensor
    depth: torch.Tensor
    decision: torch.Tensor
    item_of_rank: torch.Tensor
    rank_of_item: torch.Tensor
    path_start: torch.Tensor
    path_node: torch.Tensor

    @classmethod
    def build(cls, titles: TitleTokens) -> TitleTrie:
        """Build the tree, one level at a time.

        Raises:
            UserError: no titles, a title without tokens, or two items with the same tokens.
        """
        return _build(titles.paths)

    @property
    def nodes(self) -> int:
        """Number of nodes, the root included."""
        return len(self.item_at)

    @property
    def items(self) -> int:
        """Number of titles, I."""
        return len(self.item_of_rank)

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest title."""
        return int(self.path_start.diff().max())

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """Add up a value per item [..., I] over the items at or below each node: [..., nodes]."""
        sums = values.new_zeros(*values.shape[:-1], self.nodes)
        ends = torch.nonzero(self.item_at >= 0).flatten()
        sums[..., ends] = values[..., self.item_at[ends].long()]
        parent = torch.arange(self.nodes, device=sums.device).repeat_interleave(self.child_start.diff())  # of each edge
        bounds = torch.bincount(self.depth.long()).cumsum(0).tolist()
        for first, end in zip(bounds[-2::-1], bounds[:0:-1], strict=True):  # level by level from below
            sums.index_add_(-1, parent[first - 1 : end - 1], sums[..., first:end].clone())
        return sums

    def log_sums(self, values: torch.Tensor) -> torch.Tensor:
        """Logarithms of the sums of exp(value) over the items at or below each node: [..., I] to [..., nodes].

        Nothing underflows: what lies far below the rest of its row keeps its differences. -inf is a summand of 0.
        """
        sums = values.new_full((*values.shape[:-1], self.nodes), -torch.inf)
        ends = torch.nonzero(self.item_at >= 0).flatten()
        sums[..., ends] = values[..., self.item_at[ends].long()]
        parent = torch.arange(self.nodes, device=sums.device).repeat_interleave(self.child_start.diff())  # of each edge
        bounds = [0, *torch.bincount(self.depth.long()).cumsum(0).tolist()]
        for above, first, end in zip(bounds[-3::-1], bounds[-2:0:-1], bounds[:1:-1], strict=True):
            owner = (parent[first - 1 : end - 1] - above).expand(*sums.shape[:-1], end - first)
            own, below = sums[..., above:first], sums[..., first:end]
            top = own.scatter_reduce(-1, owner, below, "amax").clamp_min(torch.finfo(sums.dtype).min)
            total = (own - top).exp().scatter_add(-1, owner, (below - top.gather(-1, owner)).exp())
            sums[..., above:first] = top + total.log()
        return sums

    @property
    def bytes(self) -> int:
        """Memory of all tensors."""
        return sum(tensor.nbytes for tensor in self._tensors())

    def to(self, device: torch.device | str) -> TitleTrie:
        """Return the same tree on another device."""
        return replace(self, **{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    def _tensors(self) -> Iterator[torch.Tensor]:
        return (getattr(self, field.name) for field in fields(self))


def _build(paths: Sequence[np.ndarray]) -> TitleTrie:
    lengths = np.fromiter(map(len, paths), dtype=np.int64, count=len(paths))
    if not len(paths):
        raise UserError("The catalogue has no titles.", "Prepare a dataset with at least one item.")
    if not lengths.all():
        raise UserError(f"The title of item {int(np.flatnonzero(lengths == 0)[0])} has no tokens.", "Give it a title.")
    starts = np.concatenate([[0], lengths.cumsum()])
    tokens = np.concatenate(paths).astype(np.int32)
    path_node = np.empty(len(tokens), dtype=np.int32)

    # Items stay grouped by their prefix, in lexicographic order: one sort within groups a level, longer titles only.
    items = np.arange(len(paths))
    group = np.zeros(len(paths), dtype=np.int64)  # node of each item's prefix
    parent = np.empty(len(tokens) + 1, dtype=np.int32)  # [nodes], cut to length below
    edge_token = np.empty(len(tokens), dtype=np.int32)
    levels = [0, 1]  # level l are the nodes levels[l]:levels[l + 1]
    for level in range(int(lengths.max())):
        token = tokens[starts[items] + level]
        order = np.argsort((group << 32) | token, kind="stable")
        items, group, token = items[order], group[order], token[order]
        new = np.ones(len(items), dtype=bool)
        new[1:] = (group[1:] != group[:-1]) | (token[1:] != token[:-1])
        node = levels[-1] - 1 + new.cumsum()
        path_node[starts[items] + level] = node
        first, end = levels[-1], levels[-1] + int(new.sum())
        parent[first:end], edge_token[first - 1 : end - 1] = group[new], token[new]
        levels.append(end)
        alive = lengths[items] > level + 1
        items, group = items[alive], node[alive]
    del tokens
    return _finish(parent[: levels[-1]], edge_token[: levels[-1] - 1], levels, starts, path_node)


def _finish(
    parent: np.ndarray, edge_token: np.ndarray, levels: list[int], starts: np.ndarray, path_node: np.ndarray
) -> TitleTrie:
    """Number the leaves and find the chains, level by level from below and then from above."""
    nodes, depths = levels[-1], len(levels) - 1
    item_at = np.full(nodes, -1, dtype=np.int32)
    end_node = path_node[starts[1:] - 1]
    item_at[end_node] = np.arange(len(end_node))
    clash = np.flatnonzero(item_at[end_node] != np.arange(len(end_node)))
    if len(clash):
        other = int(item_at[end_node[clash[0]]])
        raise UserError(
            f"Items {int(clash[0])} and {other} have the same title tokens.",
            "Prepare the dataset with another --collisions.",
        )

    child_start = np.zeros(nodes + 1, dtype=np.int32)
    for level in range(1, depths):
        up, first = parent[levels[level] : levels[level + 1]], levels[level - 1]
        child_start[first + 1 : levels[level] + 1] = np.bincount(up - first, minlength=levels[level] - first)
    np.cumsum(child_start, out=child_start)

    size = (item_at >= 0).astype(np.int32)  # leaves at or below each node
    decision = np.arange(nodes, dtype=np.int32)
    for level in range(depths - 1, 0, -1):
        here = slice(levels[level], levels[level + 1])
        up, first = parent[here], levels[level - 1]
        below = np.bincount(up - first, weights=size[here], minlength=levels[level] - first)
        size[first : levels[level]] += below.astype(np.int32)
        link = (child_start[up + 1] - child_start[up] == 1) & (item_at[up] < 0)
        decision[up[link]] = decision[here][link]

    lo = np.zeros(nodes, dtype=np.int32)
    for level in range(1, depths):
        here = slice(levels[level], levels[level + 1])
        up = parent[here]
        before = size[here].cumsum() - size[here]  # leaves of the level before this node
        eldest = child_start[up] + 1 - levels[level]  # position of the first sibling in the level
        lo[here] = lo[up] + (item_at[up] >= 0) + before - before[eldest]
    hi = np.add(lo, size, out=size)

    rank_of_item = lo[end_node].astype(np.int64)
    item_of_rank = np.empty_like(rank_of_item)
    item_of_rank[rank_of_item] = np.arange(len(rank_of_item))
    depth = np.repeat(np.arange(depths, dtype=np.int16), np.diff(levels))
    arrays = (child_start, edge_token, item_at, lo, hi, depth, decision, item_of_rank, rank_of_item, starts, path_node)
    return TitleTrie(*map(torch.from_numpy, arrays))
