"""Lays a prompt and all its completions out in one row, shared prefixes once, for one forward pass with a tree mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class PrefixTrees:
    """B prompts with their completions as prefix trees; S slots a row.

    A row is `[prompt | nodes of the tree, level by level | padding]`. A node is one prefix of one or more completions:
    it sees the prompt, its ancestors and itself. Completions that begin alike share nodes, and tokens after the last
    decision are left out.

    Args:
        input_ids: [B, S] int64.
        position_ids: [B, S] int64, going on after the prompt by depth in the tree.
        visible: [B, S, S] bool, which slots (last axis) each slot attends to.
        sites: [D] int64 flat slots (row * S + slot) after which a decision falls, each once, ascending.
        site_of: [E] int64 index into `sites` of each decision that was passed in.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    visible: torch.Tensor
    sites: torch.Tensor
    site_of: torch.Tensor


def prefix_trees(
    prompts: Sequence[np.ndarray],
    tokens: np.ndarray,
    groups: np.ndarray,
    rows: np.ndarray,
    positions: np.ndarray,
) -> PrefixTrees:
    """Build the trees.

    Args:
        prompts: [B] token ids.
        tokens: [N, T] completions.
        groups: [N] which prompt each completion answers.
        rows: [E] the decisions' completions.
        positions: [E] the decisions' places in their completions.
    """
    needed = np.zeros(len(tokens), dtype=np.int64)  # tokens of each completion that a decision depends on
    np.maximum.at(needed, rows, positions)
    node_of, levels = _prefix_tree(tokens, groups, needed)

    prompt_lengths = np.fromiter(map(len, prompts), dtype=np.int64, count=len(prompts))
    node_group = np.concatenate([np.zeros(0, dtype=np.int64), *(level.group for level in levels)])
    order = np.argsort(node_group, kind="stable")
    sizes = np.bincount(node_group, minlength=len(prompts))
    slot = np.empty(len(node_group), dtype=np.int64)  # [nodes]
    slot[order] = np.arange(len(order)) - np.repeat(sizes.cumsum() - sizes, sizes)
    slot += prompt_lengths[node_group]
    width = int((prompt_lengths + sizes).max())

    input_ids = np.zeros((len(prompts), width), dtype=np.int64)
    position_ids = np.zeros((len(prompts), width), dtype=np.int64)
    visible = np.zeros((len(prompts), width, width), dtype=bool)
    visible[:, np.arange(width), np.arange(width)] = True  # padding sees itself: a row that sees nothing is not defined
    for row, prompt in enumerate(prompts):
        length = len(prompt)
        input_ids[row, :length] = prompt
        position_ids[row, :length] = np.arange(length)
        visible[row, :length, :length] = np.tri(length, dtype=bool)
    for depth, level in enumerate(levels):
        at = slot[level.first : level.first + len(level.group)]
        parent = np.where(level.parent < 0, prompt_lengths[level.group] - 1, slot[level.parent])
        input_ids[level.group, at] = level.token
        position_ids[level.group, at] = prompt_lengths[level.group] + depth
        visible[level.group, at] = visible[level.group, parent]
        visible[level.group, at, at] = True

    group = groups[rows]
    after = np.append(slot, 0)[node_of[rows, positions - 1]]  # without a node, every decision is the prompt's
    place = np.where(positions == 0, prompt_lengths[group] - 1, after)
    sites, site_of = np.unique(group * width + place, return_inverse=True)
    return PrefixTrees(*(torch.from_numpy(part) for part in (input_ids, position_ids, visible, sites, site_of)))


@dataclass(frozen=True)
class _Level:
    """Nodes of one depth: number of the first, and their parents (-1: the prompt), groups and tokens."""

    first: int
    parent: np.ndarray
    group: np.ndarray
    token: np.ndarray


def _prefix_tree(tokens: np.ndarray, groups: np.ndarray, needed: np.ndarray) -> tuple[np.ndarray, list[_Level]]:
    """Number the distinct prefixes of each group's completions.

    Returns:
        [N, T] the node of each completion's prefix that ends at a token (0 where not needed), and the nodes by level.
    """
    node_of = np.zeros((len(tokens), max(int(needed.max(initial=0)), 1)), dtype=np.int64)
    levels: list[_Level] = []
    alive = np.flatnonzero(needed > 0)
    parent = np.full(len(tokens), -1, dtype=np.int64)
    first = 0
    while len(alive):
        depth = len(levels)
        keys = np.stack([groups[alive], parent[alive], tokens[alive, depth]])
        order = np.lexsort(keys[::-1])
        ordered = keys[:, order]
        new = np.ones(len(order), dtype=bool)
        new[1:] = (ordered[:, 1:] != ordered[:, :-1]).any(axis=0)
        node = np.empty(len(order), dtype=np.int64)
        node[order] = first + new.cumsum() - 1
        group, up, token = ordered[:, new]
        levels.append(_Level(first, up, group, token))
        node_of[alive, depth] = parent[alive] = node
        first += len(group)
        alive = alive[needed[alive] > depth + 1]
    return node_of, levels
