"""The list constraint: which tokens may come next, for many rows at once, so that every response is a list of items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from recalign.errors import UserError
from recalign.text.trie import TitleTrie

if TYPE_CHECKING:
    from recalign.text.item_tokens import TitleTokens

FREE = -1
"""Item index of an empty place in a row's lists."""


@dataclass(frozen=True)
class State:
    """Where N rows stand in their lists.

    Args:
        node: [N] int64 trie node of the title being written.
        tail: [N] int64 how many tokens of the separator have been written; 0 within a title.
        titles: [N] int64 titles completed.
        done: [N] bool, the end token has been written.
        items: [N, K] int64 the completed titles' items, else FREE.
        excluded: [N, W + K] int64 items that may not come (again): excluded from the start, then those completed.
    """

    node: torch.Tensor
    tail: torch.Tensor
    titles: torch.Tensor
    done: torch.Tensor
    items: torch.Tensor
    excluded: torch.Tensor

    def __len__(self) -> int:
        return len(self.node)

    def take(self, rows: torch.Tensor) -> State:
        """Return the state of some rows (indices, repeats allowed)."""
        return State(*(tensor[rows] for tensor in self._tensors()))

    def put(self, rows: torch.Tensor, other: State) -> State:
        """Return the state with `rows` replaced by those of `other`."""
        pairs = zip(self._tensors(), other._tensors(), strict=True)
        return State(*(mine.index_copy(0, rows, theirs) for mine, theirs in pairs))

    def _tensors(self) -> tuple[torch.Tensor, ...]:
        return self.node, self.tail, self.titles, self.done, self.items, self.excluded


@dataclass(frozen=True)
class ValidNext:
    """The valid next tokens of N rows, padded to the largest number of them.

    Args:
        tokens: [N, C] int64; padding is the end token.
        valid: [N, C] bool.
    """

    tokens: torch.Tensor
    valid: torch.Tensor

    @property
    def counts(self) -> torch.Tensor:
        """[N] how many tokens are valid; 1 means forced."""
        return self.valid.sum(dim=1)

    def take(self, rows: torch.Tensor) -> ValidNext:
        """Return the choices of some rows (indices), no wider than they need."""
        valid = self.valid[rows]
        used = torch.nonzero(valid.any(dim=0)).flatten()
        return ValidNext(self.tokens[rows][:, used], valid[:, used])


@dataclass(frozen=True)
class Decisions:
    """The positions of N completions where more than one token was valid, with the valid ones (CSR).

    Args:
        rows: [B] int64 which completion.
        positions: [B] int64 index of the token in the completion.
        starts: [B + 1] int64 the valid tokens of decision b are `tokens[starts[b]:starts[b + 1]]`.
        tokens: [E] int64.
        chosen: [B] int64 where in `tokens` the completion's own token stands.
    """

    rows: torch.Tensor
    positions: torch.Tensor
    starts: torch.Tensor
    tokens: torch.Tensor
    chosen: torch.Tensor

    def to(self, device: torch.device) -> Decisions:
        """The same on a device."""
        return Decisions(*(getattr(self, each.name).to(device) for each in fields(self)))


class ListConstraint:
    """A vectorised state machine over rows: `t1 SEP t2 ... tK EOS`, no item twice, never an excluded one.

    A token is valid where at least one item below it is still free, so no row can run into a dead end.

    Args:
        trie: the titles.
        titles: their tokens, for separator and end.
        vocabulary_size: V, the width of the model's logits.
        list_length: K.
        device: where states live.

    Raises:
        UserError: fewer than K items, or a title that goes on with the separator's first token after another title.
    """

    def __init__(
        self,
        trie: TitleTrie,
        titles: TitleTokens,
        vocabulary_size: int,
        *,
        list_length: int,
        device: torch.device | str = "cpu",
    ) -> None:
        if trie.items < list_length:
            raise UserError(
                f"The catalogue has {trie.items} items, fewer than the {list_length} of a list.",
                "Ask for shorter lists.",
            )
        self.trie = trie.to(device)
        self.device = torch.device(device)
        self.vocabulary_size = vocabulary_size
        self.list_length = list_length
        self.end = int(titles.end)
        self.separator = torch.as_tensor(np.asarray(titles.separator), dtype=torch.long, device=device)
        self._refuse_ambiguous(titles)

    def _refuse_ambiguous(self, titles: TitleTokens) -> None:
        """A title's end must be told from its continuation by the next token alone."""
        trie = self.trie
        prefixes = torch.nonzero((trie.item_at >= 0) & (trie.child_start.diff() > 0)).flatten()
        if self.list_length == 1 or not len(prefixes):
            return
        if not len(self.separator):
            item = int(trie.item_at[prefixes[0]])
            raise UserError(
                f"The tokens of item {item}'s title begin another item's title, and there is no separator.",
                "Use a template with a separator.",
            )
        state = replace(self._blank(len(prefixes), torch.empty(len(prefixes), 0, dtype=torch.long)), node=prefixes)
        tokens, valid, _ = self._children(state)
        clash = ((tokens == self.separator[0]) & valid).any(dim=1)
        if clash.any():
            item = int(trie.item_at[prefixes[clash][0]])
            raise UserError(
                f"A title goes on with the separator right where item {item}'s title ends.", "Use another separator."
            )

    def start(self, excluded: Sequence[np.ndarray]) -> State:
        """Begin one list per row.

        Args:
            excluded: [N] arrays of item indices (any order, repeats allowed) that must not come.

        Raises:
            UserError: a row has fewer than K items left.
        """
        sizes = np.fromiter(map(len, excluded), dtype=np.int64, count=len(excluded))
        flat = np.concatenate([*excluded, np.zeros(0, dtype=np.int64)]).astype(np.int64)
        keys = np.unique(np.repeat(np.arange(len(excluded)), sizes) * self.trie.items + flat)
        rows, items = np.divmod(keys, self.trie.items)
        counts = np.bincount(rows, minlength=len(excluded))
        short = np.flatnonzero(self.trie.items - counts < self.list_length)
        if len(short):
            raise UserError(
                f"Only {self.trie.items - counts[short[0]]} of {self.trie.items} items are left for a list of "
                f"{self.list_length} after leaving out the excluded ones.",
                "Ask for shorter lists, or do not exclude the history.",
            )
        padded = np.full((len(excluded), int(counts.max(initial=0))), FREE, dtype=np.int64)
        padded[rows, np.arange(len(rows)) - (counts.cumsum() - counts)[rows]] = items
        return self._blank(len(excluded), torch.from_numpy(padded))

    def _blank(self, count: int, excluded: torch.Tensor) -> State:
        zeros = torch.zeros(count, dtype=torch.long, device=self.device)
        items = torch.full((count, self.list_length), FREE, dtype=torch.long, device=self.device)
        return State(zeros, zeros, zeros, zeros.bool(), items, torch.cat([excluded.to(self.device), items], dim=1))

    # ------------------------------------------------------------ valid tokens

    def valid_tokens(self, state: State) -> ValidNext:
        """Return the valid next tokens of each row; the end token where a row is done."""
        tokens, valid, leaves = self._children(state)
        tail = self._tail_tokens(state)
        within = ~(state.done | (state.tail > 0))
        tokens = torch.cat([tokens, tail[:, None]], dim=1)
        valid = torch.cat([valid & within[:, None], (leaves | ~within)[:, None]], dim=1)
        return ValidNext(tokens.masked_fill(~valid, self.end), valid)

    def reached(self, node: torch.Tensor, choices: ValidNext) -> torch.Tensor:
        """[N, C] where `choices` at nodes [N] lead: a node, `trie.nodes` + item where its title ends; 0 in padding."""
        column = torch.arange(choices.tokens.shape[1], device=self.device)
        child = self.trie.child_start[node].long()[:, None] + column + 1
        child[:, -1] = self.trie.nodes + self.trie.item_at[node].long()  # the last column leaves the title
        return child.masked_fill(~choices.valid, 0)

    def _children(self, state: State) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Children's tokens [N, C], whether an item is free below them [N, C], whether the title may end here [N]."""
        trie = self.trie
        start = trie.child_start[state.node].long()
        count = trie.child_start[state.node + 1].long() - start
        width = int(count.max()) if len(count) else 0
        edge = start[:, None] + torch.arange(width, device=self.device)  # [N, C]
        exists = edge < (start + count)[:, None]
        edge = edge.clamp_max(max(len(trie.child_token) - 1, 0))
        child = edge + 1
        free = trie.hi[child].long() - trie.lo[child].long()
        here = trie.item_at[state.node].long()
        ends = here >= 0
        if state.excluded.shape[1]:
            below, at = self._excluded_below(state)
            column = torch.where(below >= 0, below - start[:, None] - 1, width)
            taken = torch.zeros(len(state), width + 1, dtype=torch.long, device=self.device)
            free = free - taken.scatter_add_(1, column, torch.ones_like(column))[:, :width]
            ends = ends & ~at.any(dim=1)
        return trie.child_token[edge].long(), exists & (free > 0), ends

    def _excluded_below(self, state: State) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the child [N, W] of the row's node above each excluded item (-1: none), and whether it ends there."""
        trie = self.trie
        known = state.excluded >= 0
        item = state.excluded.clamp_min(0)
        rank = trie.rank_of_item[item]
        inside = known & (trie.lo[state.node, None] <= rank) & (rank < trie.hi[state.node, None])
        ends_here = inside & (trie.item_at[state.node, None] == item)
        step = trie.path_start[item] + trie.depth[state.node, None]
        child = trie.path_node[step.clamp_max(len(trie.path_node) - 1)].long()
        return torch.where(inside & ~ends_here, child, -1), ends_here

    def _tail_tokens(self, state: State) -> torch.Tensor:
        """[N] the token that leaves a completed title (or goes on leaving it), or the end token where a row is done."""
        last = state.titles + (state.tail == 0) >= self.list_length
        if not len(self.separator):
            return torch.full_like(state.node, self.end)
        token = self.separator[state.tail.clamp_max(len(self.separator) - 1)]
        return torch.where(state.done | (last & (state.tail == 0)), self.end, token)

    # ------------------------------------------------------------ moving on

    def advance(self, state: State, tokens: torch.Tensor) -> State:
        """Return the state after one token [N] a row, each valid for its row (done rows: any token, they stay)."""
        within = ~(state.done | (state.tail > 0))
        child = self.child(state.node, tokens)
        down = within & (child >= 0)
        state = replace(state, node=torch.where(down, child, state.node))
        if not len(self.separator):
            arrived = down & (self.trie.item_at[state.node] >= 0) & (state.titles + 1 < self.list_length)
            state = self._complete(state, arrived)
        return self._leave(state, ~down & ~state.done)

    def _leave(self, state: State, leaving: torch.Tensor) -> State:
        """Write one token of the separator, or the end token, in the rows that leave a completed title."""
        state = self._complete(state, leaving & (state.tail == 0))
        finished = leaving & (state.titles == self.list_length)
        tail = torch.where(leaving & ~finished, state.tail + 1, state.tail)
        return replace(
            state,
            tail=torch.where(tail == len(self.separator), 0, tail),
            done=state.done | finished,
        )

    def _complete(self, state: State, rows: torch.Tensor) -> State:
        """Record the item of the node and go back to the root, in some rows (bool [N])."""
        chosen = torch.where(rows, self.trie.item_at[state.node].long(), FREE)[:, None]
        slot = state.titles.clamp_max(self.list_length - 1)[:, None]
        items = state.items.scatter(1, slot, torch.where(rows[:, None], chosen, state.items.gather(1, slot)))
        place = slot + state.excluded.shape[1] - self.list_length
        excluded = state.excluded.scatter(1, place, torch.where(rows[:, None], chosen, state.excluded.gather(1, place)))
        return replace(
            state,
            node=torch.where(rows, 0, state.node),
            titles=state.titles + rows,
            items=items,
            excluded=excluded,
        )

    def child(self, node: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """[N] the child that a token leads to, or -1: a binary search among each node's edges."""
        trie = self.trie
        low = trie.child_start[node].long()
        end = trie.child_start[node + 1].long()
        high = end
        for _ in range(int((end - low).max()).bit_length() if len(node) else 0):
            middle = (low + high) // 2
            smaller = (low < high) & (trie.child_token[middle.clamp_max(len(trie.child_token) - 1)] < tokens)
            low, high = torch.where(smaller, middle + 1, low), torch.where(smaller, high, torch.minimum(middle, high))
        found = (low < end) & (trie.child_token[low.clamp_max(len(trie.child_token) - 1)] == tokens)
        return torch.where(found, low + 1, -1)

    def forced(self, state: State) -> tuple[State, torch.Tensor, torch.Tensor]:
        """Follow the tokens that the trie alone decides: chains, separators, the end.

        Returns:
            The state after them, the tokens [N, R] padded with the end token, and how many [N] each row has. A row that
            stands at a node with several children is not moved, even if only one of them still has a free item.
        """
        trie = self.trie
        live = ~state.done
        target = torch.where(live & (state.tail == 0), trie.decision[state.node].long(), state.node)
        run = (trie.depth[target] - trie.depth[state.node]).long()
        leaf = trie.child_start[target] == trie.child_start[target + 1]
        last = state.titles + 1 >= self.list_length
        tail = torch.where(last, 1, len(self.separator)) * (leaf & (state.tail == 0))
        tail = live * torch.where(state.tail > 0, len(self.separator) - state.tail, tail)
        counts = run + tail

        column = torch.arange(int(counts.max()) if len(counts) else 0, device=self.device)
        item = trie.item_of_rank[trie.lo[target].long()]
        step = (trie.path_start[item] + trie.depth[state.node])[:, None] + column
        tokens = trie.child_token[trie.path_node[step.clamp_max(len(trie.path_node) - 1)].long() - 1].long()
        if len(self.separator):
            place = column - run[:, None] + state.tail[:, None]
            separator = self.separator[place.clamp(0, len(self.separator) - 1)]
            separator = torch.where((last & (state.tail == 0))[:, None], self.end, separator)
        else:
            separator = torch.full_like(tokens, self.end)
        tokens = torch.where(column < run[:, None], tokens, separator)
        tokens = torch.where(column < counts[:, None], tokens, self.end)

        ending = live & leaf & (state.tail == 0)
        moved = replace(state, node=target)
        moved = self._complete(moved, ending)
        done = state.done | (ending & last)
        return replace(moved, tail=torch.where(live, 0, state.tail), done=done), tokens, counts

    # ------------------------------------------------------------ known completions

    def replay(self, tokens: torch.Tensor, lengths: torch.Tensor, excluded: Sequence[np.ndarray]) -> Decisions:
        """Find where sampled completions had a choice, and between which tokens.

        Runs once over the decisions of a list, all rows together; [N, T, V] never exists.

        Args:
            tokens: [N, T] int64 completions that obey the constraint.
            lengths: [N] their lengths, the end token included.
            excluded: [N] as in `start`.
        """
        tokens, lengths = tokens.to(self.device), lengths.to(self.device)
        state = self.start(excluded)
        rows = torch.arange(len(tokens), device=self.device)
        position = torch.zeros_like(rows)
        parts: list[tuple[torch.Tensor, ...]] = []
        while len(rows):
            state, _, counts = self.forced(state)
            position = position + counts
            alive = torch.nonzero(~state.done & (position < lengths[rows])).flatten()
            state, rows, position = state.take(alive), rows[alive], position[alive]
            choices = self.valid_tokens(state)
            token = tokens[rows, position]
            open_ = choices.counts > 1
            valid = choices.valid & open_[:, None]
            mine = valid & (choices.tokens == token[:, None])
            own = choices.tokens[valid]
            chosen = torch.nonzero(mine[valid]).flatten()
            parts.append((rows[open_], position[open_], choices.counts[open_], own, chosen))
            state, position = self.advance(state, token), position + 1
        return _join(parts, self.device)


def _join(parts: list[tuple[torch.Tensor, ...]], device: torch.device) -> Decisions:
    """Lay the decisions of all rounds end to end."""
    empty = torch.zeros(0, dtype=torch.long, device=device)
    offsets = np.cumsum([0, *(len(part[3]) for part in parts)])
    rows, positions, counts, tokens = (torch.cat([empty, *(part[i] for part in parts)]) for i in range(4))
    chosen = torch.cat([empty, *(part[4] + int(offset) for part, offset in zip(parts, offsets, strict=False))])
    starts = torch.cat([torch.zeros(1, dtype=torch.long, device=device), counts.cumsum(0)])
    return Decisions(rows, positions, starts, tokens, chosen)
