"""The inference engine: a model bound to a catalogue, which samples, decodes greedily and searches lists of items."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from recalign.api import Completions, Rescorer, Scoring
from recalign.data.catalogue import Catalogue
from recalign.data.dataset import Row
from recalign.decoding.beam_search import BeamSearch
from recalign.decoding.beam_thresholds import Thresholds, ThresholdSearch
from recalign.decoding.compatibility import beyond_limit, obstacle_to_sharing, tell
from recalign.decoding.constraint import Decisions, ListConstraint
from recalign.decoding.exact_search import ExactSearch
from recalign.decoding.hidden_states import follow, last_hidden_states, takes_tree_mask
from recalign.decoding.prompt_cache import CHAIN, TREE, Cost, PromptCache, SharedPromptCache, room
from recalign.decoding.questions import EngineQuestions
from recalign.decoding.sampling import Sampler, join
from recalign.decoding.shared_attention import ALONE, shared
from recalign.decoding.uncached import UncachedPrompts
from recalign.errors import UserError
from recalign.models.prepacked import Layouts
from recalign.models.products import inference_products

if TYPE_CHECKING:
    from recalign.models.policy import Policy

SLOTS: dict[Scoring, int] = {"renormalised": 8, "full": 24}
"""Tokens that a search holds beside a prompt, by beam; more than it took on Amazon Office."""
FULL_EXACT = 80
"""The same of exact search over full-vocabulary scores, by item."""


class PolicyEngine:
    """Generates lists with a policy.

    Args:
        policy: model, tokenizer, title tokens and prompter.
        catalogue: the items; their number must be that of the policy's titles.
        exclude_history: never recommend an item of the row's history.
        token_budget: how many prompt and continuation tokens to hold at once; bounds the memory of keys and values.
        seed: what decoders sample with.

    Attributes:
        task: what the policy was trained for, `next` or `list`.
        list_length: titles of a list that it was trained to write; 1 for the next task.
        cost: counters of what was spent.
        trie: the catalogue's titles as a tree.
        questions: what is asked about single candidates.
        obstacle: why the model cannot share prompts (then every forward pass encodes the whole prompt again), or "".
    """

    def __init__(
        self,
        policy: Policy,
        catalogue: Catalogue,
        *,
        exclude_history: bool,
        token_budget: int = 32768,
        seed: int = 0,
    ) -> None:
        if len(policy.titles.paths) != len(catalogue):
            raise UserError(
                f"The model knows {len(policy.titles.paths)} titles, the catalogue has {len(catalogue)} items.",
                "Use the dataset that the model was trained on.",
            )
        self.policy, self.catalogue = policy, catalogue
        self.exclude_history, self.token_budget, self.seed = exclude_history, token_budget, seed
        self.task, self.list_length = policy.prompter.task, policy.prompter.list_length
        self.trie = policy.cached_trie.trie.to(policy.model.device)
        self.cost = Cost()
        self._layouts = Layouts()
        self.obstacle = obstacle_to_sharing(policy.model)
        if self.obstacle:
            tell(policy.model, self.obstacle)

    def constraint(self, list_length: int) -> ListConstraint:
        """Return the list constraint for lists of a length.

        Raises:
            UserError: fewer items than that.
        """
        device = self.policy.model.device
        titles, width = self.policy.titles, self.vocabulary_size
        return ListConstraint(self.trie, titles, width, list_length=list_length, device=device)

    def replay(
        self, tokens: torch.Tensor, lengths: torch.Tensor, excluded: Sequence[np.ndarray], *, list_length: int
    ) -> Decisions:
        """Find where known completions had a choice, and between which tokens (see `ListConstraint.replay`).

        It runs on the CPU, wherever the model lies: each of its many small steps would wait for a GPU.

        Args:
            tokens: [N, T] int64 completions that obey the constraint.
            lengths: [N] their lengths, the end token included.
            excluded: [N] items that each must not have.
            list_length: K titles of each.

        Returns:
            The decisions, on the model's device.
        """
        trie, titles = self.policy.cached_trie.trie, self.policy.titles
        constraint = ListConstraint(trie, titles, self.vocabulary_size, list_length=list_length, device="cpu")
        return constraint.replay(tokens, lengths, excluded).to(self.policy.device)

    @property
    def vocabulary_size(self) -> int:
        """V, the width of the model's logits."""
        return int(self.policy.model.config.get_text_config().vocab_size)

    def excluded(self, row: Row) -> np.ndarray:
        """Return the items that a row must not be recommended: what its user consumed, and all but its candidates."""
        parts = [row.consumed] if self.exclude_history else []
        if row.candidates is not None:
            parts.append(np.setdiff1d(np.arange(len(self.catalogue)), row.candidates))
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    def excluded_by(self, rows: Sequence[Row]) -> list[np.ndarray]:
        """Return `excluded` of each row, as the constraint takes it."""
        return [self.excluded(row) for row in rows]

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
        """Sample G lists for each of P rows.

        Every completion has random numbers of its own, keyed by (seed, epoch, row.index, place in the group): results
        do not depend on what else is in the batch.

        Args:
            rows: P rows.
            group_size: G.
            list_length: K titles per list.
            temperature: divides the logits; below 0.01 they may overflow.
            repetition_penalty: as in transformers, over prompt and completion.
            seed: of the random numbers.
            epoch: another epoch samples anew.
            constrained: follow the trie (else free text, whose titles are INVALID where they name no item).

        Raises:
            UserError: fewer items left than K.
        """
        sampler = Sampler(self, list_length, temperature, repetition_penalty, seed, epoch, constrained)
        return self._generate(sampler, rows, group_size)

    def greedy(
        self, rows: Sequence[Row], *, list_length: int, repetition_penalty: float = 1.0, constrained: bool = True
    ) -> Completions:
        """Take the most probable token at every step; one list per row. Arguments as in `sample`."""
        sampler = Sampler(self, list_length, None, repetition_penalty, 0, 0, constrained)
        return self._generate(sampler, rows, 1)

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
        """Search the best single titles of each of U rows.

        Args:
            rows: U rows.
            width: B, beams per row.
            size: K, items to return.
            scoring: log-probabilities renormalised over the trie's valid tokens, or over the full vocabulary.
            length_penalty: divide scores by length ** length_penalty; 0 compares sums.
            rescorer: changes the log-probabilities of tokens that are a choice, and weighs those of forced tokens.

        Returns:
            Items [U, K] int64 and scores [U, K] float64, best first, on the CPU; INVALID and -inf where fewer than K
            titles were found.

        Raises:
            UserError: K larger than B.
        """
        if size > width:
            raise UserError(f"A beam of width {width} cannot return {size} items.", "Widen the beam or ask for less.")
        search = BeamSearch(self, width, scoring, length_penalty, rescorer=rescorer)
        items, scores = self._search(search, rows, SLOTS[scoring] * width)
        return items[:, :size], scores[:, :size]

    def thresholds(self, rows: Sequence[Row], *, width: int) -> Thresholds:
        """Search the titles of U rows by `beam` (renormalised, no length penalty), for what its prefixes must score.

        Args:
            rows: U rows.
            width: B, beams per row.

        Returns:
            The thresholds, on the CPU.
        """
        _, going, ending, decided = self._search(ThresholdSearch(self, width), rows, SLOTS["renormalised"] * width)
        return Thresholds(going, ending, decided)

    def exact(
        self,
        rows: Sequence[Row],
        *,
        size: int,
        scoring: Scoring = "renormalised",
        breadth: int | None = None,
        rescorer: Rescorer | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Find the true top K titles of each of U rows.

        Args:
            rows: U rows.
            size: K.
            scoring: as in `beam`.
            breadth: prefixes of a row opened at a time (default: K); changes the speed only.
            rescorer: as in `beam`; what it returns must not exceed 0.

        Returns:
            Items [U, K] int64 and scores [U, K] float64, best first, on the CPU; INVALID and -inf where there are fewer
            than K items; and how many trie nodes were opened, [U].
        """
        breadth = breadth or size
        slots = FULL_EXACT if scoring == "full" else SLOTS[scoring]
        search = ExactSearch(self, size, scoring, breadth, rescorer)
        items, scores, opened = self._search(search, rows, slots * max(size, breadth))
        self.cost.nodes_opened += int(opened.sum())
        return items, scores, opened

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
        prompts = [self.policy.prompter.encode(row) for row in rows]
        completions = follow(prompts, responses, owners)
        places = list(completions.lengths[:, None] - 1) if positions is None else positions
        self.cost.prompts += len(prompts)
        self.cost.prompt_tokens += sum(map(len, prompts))
        with self.inference():
            tree_mask = responses is not None and self.takes_tree_mask
        with contextlib.nullcontext() if gradients else self.inference():
            return last_hidden_states(self.policy.model, completions, places, self.token_budget, tree_mask)

    @cached_property
    def takes_tree_mask(self) -> bool:
        """Whether the model takes prefix trees; to be asked within `inference`."""
        return takes_tree_mask(self.policy.model)

    @cached_property
    def questions(self) -> EngineQuestions:
        """What is asked about single candidates."""
        return EngineQuestions(self)

    def _search(
        self, search: BeamSearch | ThresholdSearch | ExactSearch, rows: Sequence[Row], slots: int
    ) -> tuple[torch.Tensor, ...]:
        """Run a search batch by batch; its results in the order of the rows, on the CPU."""
        prompts = [self.policy.prompter.encode(row) for row in rows]
        order, parts = [], []
        with self.inference():
            for batch in self.batches(prompts, room(slots, TREE)):
                parts.append(search.run([rows[i] for i in batch], [prompts[i] for i in batch]))
                order.extend(batch)
        place = torch.argsort(torch.tensor(order))
        items, *others = (torch.cat(columns).cpu()[place] for columns in zip(*parts, strict=True))
        self.cost.completion_tokens += int(self.trie.path_start.cpu().diff()[items[items >= 0]].add(1).sum())
        return items, *others

    def _generate(self, sampler: Sampler, rows: Sequence[Row], group_size: int) -> Completions:
        titles, count = self.policy.titles, sampler.list_length
        slots = titles.longest_response(count)
        if sampler.constrained:  # the longest lists are rare, and the last title's forced tokens are not encoded
            lengths = self.trie.path_start.diff().double()
            mean, deviation = float(lengths.mean()), float(lengths.std(correction=0))
            slots = min(slots, int(count * (mean + len(titles.separator)) + 3 * deviation * (count - 1) ** 0.5))
        prompts = [self.policy.prompter.encode(row) for row in rows]
        order, parts = [], []
        with self.inference():
            for batch in self.batches(prompts, group_size * room(slots, CHAIN)):
                parts.append(sampler.run([rows[i] for i in batch], [prompts[i] for i in batch], group_size))
                order.extend(batch)
        completions = join(parts, order, group_size, titles.end)
        self.cost.completion_tokens += int(completions.lengths.sum())
        return completions

    # ------------------------------------------------------------ shared with beam search

    def batches(self, prompts: Sequence[np.ndarray], beside: int) -> Iterator[list[int]]:
        """Yield indices of prompts of like length, each batch within the token budget.

        Args:
            prompts: [P] token ids.
            beside: tokens to hold beside each prompt.
        """
        order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
        start = 0
        while start < len(order):
            size = max(1, self.token_budget // (len(prompts[order[start]]) + beside))
            yield order[start : start + size]
            start += size

    @contextlib.contextmanager
    def inference(self) -> Iterator[None]:
        """Encode and continue prompts within this: no gradients or dropout, other threads wait; the time is counted."""
        model, started = self.policy.model, time.perf_counter()
        with torch.no_grad(), ALONE if self.obstacle else shared(model), inference_products(model, self._layouts):
            training = model.training
            model.eval()
            try:
                yield
            finally:
                model.train(training)
                self.cost.seconds += time.perf_counter() - started

    def begin(
        self,
        rows: Sequence[Row],
        prompts: Sequence[np.ndarray],
        list_length: int,
        segments: int = 1,
        *,
        branching: bool = False,
    ) -> tuple[PromptCache, torch.Tensor]:
        """Encode the prompts [P] of some rows in a new cache; return it and the logits after each: [P, V].

        Raises:
            UserError: the logits are no numbers.
        """
        cache = self.prompt_cache(prompts, list_length)
        logits = cache.begin(prompts, segments, branching=branching)
        broken = logits.isnan().any(dim=1)
        if broken.any():
            raise UserError(
                f"The model's logits are nan after the prompt of user '{rows[int(broken.int().argmax())].user_id}'.",
                "Its weights are broken, or its training diverged: use an earlier checkpoint, or train at a lower "
                "--learning-rate.",
            )
        return cache, logits

    def prompt_cache(self, prompts: Sequence[np.ndarray], list_length: int) -> PromptCache:
        """Return an empty cache for some prompts and lists of K titles, of the kind that the model takes."""
        longest = list_length * (self.trie.longest + len(self.policy.titles.separator)) + 1
        return self.cache_reaching(max(map(len, prompts)) + longest)

    def shares(self, reach: int) -> bool:
        """Whether sequences of so many tokens share their prompts in the cache."""
        return not self.obstacle and not beyond_limit(self.policy.model, reach)

    def cache_reaching(self, reach: int) -> PromptCache:
        """Return an empty cache for sequences of up to `reach` tokens, of the kind that the model takes."""
        if self.shares(reach):
            return SharedPromptCache(self.policy.model, self.cost)
        return UncachedPrompts(self.policy.model, self.cost, self.token_budget)
