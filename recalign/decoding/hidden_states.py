"""Hidden states of the language model: what its head reads, and heads that stand beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel

from recalign.decoding.compatibility import (
    KEEPS_STATES,
    UNSUPPORTED,
    beyond_limit,
    computes_in_half,
    keeps_states,
    reason,
    tell,
)
from recalign.decoding.microbatches import microbatches
from recalign.decoding.prefix_tree import PrefixTrees, prefix_trees
from recalign.decoding.prompt_cache import Cost
from recalign.decoding.shared_attention import own
from recalign.decoding.shared_prompt import hidden_beside_prompts, sharing_is_cheaper, tokens_needed


class PromptedCompletions(NamedTuple):
    """N completions of P prompts.

    Args:
        prompts: [P] token ids.
        tokens: [N, T] int64, on the CPU.
        lengths: [N] int64.
        groups: [N] int64 which prompt each completion follows.
    """

    prompts: Sequence[np.ndarray]
    tokens: np.ndarray
    lengths: np.ndarray
    groups: np.ndarray

    @property
    def reach(self) -> int:
        """Number of tokens of the longest prompt with a completion of its own."""
        prompts = np.fromiter(map(len, self.prompts), dtype=np.int64, count=len(self.prompts))
        return int((prompts[self.groups] + self.lengths).max(initial=0))

    def take(self, rows: np.ndarray) -> PromptedCompletions:
        """Return some completions (row numbers by ascending group), with only the prompts that they follow."""
        followed, groups = np.unique(self.groups[rows], return_inverse=True)
        prompts = [self.prompts[prompt] for prompt in followed]
        return PromptedCompletions(prompts, self.tokens[rows], self.lengths[rows], groups)


def follow(
    prompts: Sequence[np.ndarray], responses: Sequence[np.ndarray] | None, owners: Sequence[int] | np.ndarray | None
) -> PromptedCompletions:
    """Lay out responses [N] after the prompts [P] of their owners [N]; None: nothing, or one response per prompt."""
    if responses is None:
        return PromptedCompletions(
            prompts, np.zeros((len(prompts), 0), np.int64), np.zeros(len(prompts), np.int64), np.arange(len(prompts))
        )
    groups = np.arange(len(prompts)) if owners is None else np.asarray(owners, dtype=np.int64)
    assert len(groups) == len(responses), f"{len(responses)} responses of {len(groups)} owners"
    lengths = np.fromiter(map(len, responses), dtype=np.int64, count=len(responses))
    tokens = np.zeros((len(responses), int(lengths.max(initial=0))), dtype=np.int64)
    for row, response in zip(tokens, responses, strict=True):
        row[: len(response)] = response
    return PromptedCompletions(prompts, tokens, lengths, groups)


def last_hidden_states(
    model: PreTrainedModel,
    completions: PromptedCompletions,
    places: Sequence[np.ndarray],
    budget: int,
    tree_mask: bool,
    cost: Cost | None = None,
) -> torch.Tensor:
    """Run a model without its head; return the last layer's states at some tokens of completions.

    Args:
        model: a causal language model, with or without adapters.
        completions: N completions of P prompts, in any order.
        places: [N] arrays of places in each completion, E in all; -1 is the prompt's last token.
        budget: maximum number of tokens per forward pass, padding included.
        tree_mask: as in `hidden_before`.
        cost: counts the passes.

    Returns:
        [E, H], completion by completion; gradients flow where they are enabled.
    """
    counts = np.fromiter(map(len, places), dtype=np.int64, count=len(places))
    rows, positions = np.arange(len(places)).repeat(counts), np.concatenate([*places, []]).astype(np.int64)
    by_group = np.argsort(completions.groups, kind="stable")
    ordered = completions.take(by_group)
    parts, order = [torch.zeros(0, model.config.get_text_config().hidden_size, device=model.device)], []
    for part in microbatches(ordered.prompts, ordered.lengths, ordered.groups, budget, tree_mask=tree_mask):
        number = np.full(len(places), -1)
        number[by_group[part.rows]] = np.arange(len(part.rows))
        mine = np.flatnonzero(number[rows] >= 0)
        layout = ordered.take(part.rows)
        hidden, site_of = hidden_before(model, layout, number[rows[mine]], positions[mine] + 1, tree_mask=tree_mask)
        parts.append(hidden[site_of])
        order.append(mine)
        if cost is not None:
            cost.forward_passes += 1
    place = np.argsort(np.concatenate([*order, np.zeros(0, dtype=np.int64)]))
    return torch.cat(parts[len(parts) > 1 :])[torch.from_numpy(place).to(model.device)]


def hidden_before(
    model: PreTrainedModel,
    completions: PromptedCompletions,
    rows: np.ndarray,
    positions: np.ndarray,
    *,
    tree_mask: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the model where some tokens of completions are predicted; equal prefixes of one prompt are one site.

    Args:
        model: without its head.
        completions: N completions.
        rows: [E] the tokens' completions.
        positions: [E] the tokens' places in their completions.
        tree_mask: False runs every completion in a row of its own, for architectures that take no 4D attention mask; so
            do those that look back less far than the completions reach.

    Returns:
        Hidden states [D, H] of the sites, and the site [E] of each token.
    """
    if tree_mask and not beyond_limit(model, completions.reach):
        layout = (completions.prompts, completions.tokens, completions.groups, rows, positions)
        trees = prefix_trees(*layout)
        needed = tokens_needed(len(completions.tokens), rows, positions)
        if sharing_is_cheaper(model, completions.prompts, needed, completions.groups, trees.input_ids.shape):
            return hidden_beside_prompts(model, *layout)
        hidden = _hidden_of_trees(model, trees)  # [B, S, H]
    else:
        trees = _one_per_row(completions, rows, positions)
        hidden = _hidden_of_rows(model, trees)
    return hidden.flatten(0, 1)[trees.sites.to(model.device)], trees.site_of.to(model.device)


def _hidden_of_trees(model: PreTrainedModel, trees: PrefixTrees) -> torch.Tensor:
    """Run the decoder over prefix trees: hidden states [B, S, H]."""
    device = model.device
    mask = torch.zeros(trees.visible.shape, dtype=model.dtype, device=device)
    mask.masked_fill_(~trees.visible.to(device), torch.finfo(model.dtype).min)
    with own(model):
        output = _decoder(model)(
            input_ids=trees.input_ids.to(device),
            attention_mask=mask[:, None],
            position_ids=trees.position_ids.to(device),
            use_cache=False,
        )
    return output.last_hidden_state


def _hidden_of_rows(model: PreTrainedModel, trees: PrefixTrees) -> torch.Tensor:
    """Run the decoder over padded rows: hidden states [B, S, H]."""
    device = model.device
    present = trees.visible.diagonal(dim1=1, dim2=2)
    with own(model):
        output = _decoder(model)(
            input_ids=trees.input_ids.to(device), attention_mask=present.long().to(device), use_cache=False
        )
    return output.last_hidden_state


def _decoder(model: PreTrainedModel) -> torch.nn.Module:
    """Return a model without its head; Llama 4 says that it is its own."""
    decoder: torch.nn.Module = model.get_decoder()
    return model.get_submodule("model") if decoder is model else decoder


def _one_per_row(completions: PromptedCompletions, rows: np.ndarray, positions: np.ndarray) -> PrefixTrees:
    """Lay out every completion after a copy of its prompt, one per row, padded on the right."""
    prompts = [completions.prompts[group] for group in completions.groups]
    starts = np.fromiter(map(len, prompts), dtype=np.int64, count=len(prompts))
    width = int((starts + completions.lengths).max())
    input_ids = np.zeros((len(prompts), width), dtype=np.int64)
    for row, prompt in enumerate(prompts):
        length = int(completions.lengths[row])
        input_ids[row, : len(prompt)] = prompt
        input_ids[row, len(prompt) : len(prompt) + length] = completions.tokens[row, :length]
    present = np.arange(width) < (starts + completions.lengths)[:, None]
    sites, site_of = np.unique(rows * width + starts[rows] + positions - 1, return_inverse=True)
    return PrefixTrees(
        torch.from_numpy(input_ids),
        torch.arange(width).expand(len(prompts), -1),
        torch.diag_embed(torch.from_numpy(present)),
        torch.from_numpy(sites),
        torch.from_numpy(site_of),
    )


HALF_APART = 0.1
"""Relative difference of hidden states in half precision; trees that were read causally differed by more."""


def takes_tree_mask(model: PreTrainedModel) -> bool:
    """Whether a model takes prefix trees with a 4D mask; where not, users are told why."""
    obstacle = obstacle_to_tree_mask(model)
    if obstacle:
        tell(model, obstacle)
    return not obstacle


def obstacle_to_tree_mask(model: PreTrainedModel) -> str:
    """Say why a model cannot take prefix trees with a 4D mask, or "" where they give what separate rows give."""
    if keeps_states(model):
        return KEEPS_STATES
    drawn = np.random.default_rng(0).integers(int(model.config.get_text_config().vocab_size), size=(5, 4))
    tokens = drawn[[0, 1, 2]]
    tokens[1, 0] = tokens[0, 0]  # the first two begin alike
    rows, positions = np.divmod(np.arange(12), 4)
    completions = PromptedCompletions([drawn[3], drawn[4, :2]], tokens, np.full(3, 4), np.array([0, 0, 1]))
    layout = (completions.prompts, completions.tokens, completions.groups, rows, positions)
    trees = prefix_trees(*layout)
    with torch.no_grad():
        hidden, site_of = hidden_before(model, completions, rows, positions, tree_mask=False)
        try:
            in_trees = _hidden_of_trees(model, trees).flatten(0, 1)[trees.sites.to(model.device)]
        except UNSUPPORTED as error:
            return reason("a mask of what each token sees", error)
    separate = hidden[site_of].float()
    found = in_trees[trees.site_of.to(model.device)].float()
    apart = (found - separate).norm(dim=1) / separate.norm(dim=1).clamp_min(1e-6)  # [12]; logits may be any size
    same = bool((apart <= (HALF_APART if computes_in_half(model) else 1e-3)).all())
    return "" if same else "it reads a tree mask as something else"
