"""The training step of preference objectives: targets and rejected titles behind one encoding of each prompt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from recalign.api import INVALID, PreferenceBatch, PreferenceObjective, ValidTokens
from recalign.decoding.constraint import Decisions
from recalign.decoding.engine import PolicyEngine
from recalign.decoding.hidden_states import hidden_before, takes_tree_mask
from recalign.decoding.microbatches import microbatches
from recalign.decoding.scoring import logits_of
from recalign.models.policy import Policy
from recalign.training.accumulation import Accumulation, weighed_loss
from recalign.training.logprobs.completions import Sampled
from recalign.training.offline.examples import AnswerExamples, Example
from recalign.training.offline.negatives import Negatives, Rejected
from recalign.training.speed import Work


class PreferenceExamples(Dataset[tuple[int, Example]]):
    """Rows with their targets, and the epoch, on which the rejected titles depend."""

    def __init__(self, examples: AnswerExamples) -> None:
        self.examples = examples
        self.length_of = examples.length_of

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, address: tuple[int, int]) -> tuple[int, Example]:
        return address[0], self.examples[address]


@dataclass(frozen=True)
class TitleScores:
    """Log-probabilities of N titles' T tokens; 0 and False at tokens that do not count."""

    logps: torch.Tensor
    thresholds: torch.Tensor
    choices: torch.Tensor


class PreferenceStep:
    """A preference objective as a TrainingStep: all titles of a prompt share one encoding of it.

    Args:
        policy: what is trained.
        objective: the loss.
        engine: catalogue, constraint and, for negatives of the policy's own, its beam search.
        reference: gives the reference policy.
        negatives: where rejected titles come from.
        token_budget: maximum number of tokens per forward and backward pass, padding included; the titles of one row
            stay together, whatever they take.
    """

    runs_wrapped = False

    def __init__(
        self,
        policy: Policy,
        objective: PreferenceObjective,
        engine: PolicyEngine,
        reference: Callable[[], AbstractContextManager[torch.nn.Module]],
        negatives: Negatives | Rejected,
        token_budget: int = 2**62,
    ) -> None:
        self.policy, self.objective, self.engine, self.reference = policy, objective, engine, reference
        self.negatives, self.token_budget = negatives, token_budget
        self.work = Work()
        self.tree_mask = takes_tree_mask(policy.model)

    def begin(self, batches: Sequence[Sequence[tuple[int, Example]]]) -> None:
        """Nothing is done before an update."""

    def accumulate(
        self, model: torch.nn.Module, batch: Sequence[tuple[int, Example]], update: Accumulation
    ) -> dict[str, float]:
        """Run a batch's forward and backward passes within the token budget.

        Args:
            model: not used: gradients go to the policy's own parameters, whatever wraps them.
            batch: epoch and example of each row.
            update: that the batch is a part of.

        Returns:
            Figures to log, averaged over rows.
        """
        examples, items = self._drawn(batch)
        titles = self._titles(examples, items)
        self.work.add(titles.prompts, int(titles.lengths.sum()))
        layout = (titles.prompts, titles.lengths, titles.groups, self.token_budget)
        figures: dict[str, float] = defaultdict(float)
        for part in microbatches(*layout, whole=True, tree_mask=self.tree_mask):
            rows = np.unique(titles.groups[part.rows])
            scored = self._scored([examples[row] for row in rows], items[rows])
            loss, weight, told = weighed_loss(self.objective, scored)
            update.add(loss, weight)
            for name, value in told.items():
                figures[name] += value * len(rows) / len(batch)
        return dict(figures)

    def preferences(self, batch: Sequence[tuple[int, Example]]) -> PreferenceBatch:
        """Draw rejected titles and score all titles under the policy and under the reference, in one pass each."""
        return self._scored(*self._drawn(batch))

    def _drawn(self, batch: Sequence[tuple[int, Example]]) -> tuple[list[Example], np.ndarray]:
        """Return the rows, and the items [B, 1 + D] of each: its target and the rejected ones."""
        examples = [example for _, example in batch]
        rows = [example.row for example in examples]
        with self.work.watch.timing("negatives"):
            rejected = self.negatives.draw(rows, batch[0][0])
        return examples, np.concatenate([np.array([[row.targets[0]] for row in rows]), rejected], axis=1)

    def _scored(self, examples: Sequence[Example], items: np.ndarray) -> PreferenceBatch:
        titles = self._titles(examples, items)
        rank = self.objective.needs.threshold_rank
        scores = self._score(self.policy.model, titles, rank)
        with self.work.watch.timing("reference"), torch.no_grad(), self.reference() as reference:
            reference_scores = self._score(reference, titles, 0)

        present = torch.from_numpy(items != INVALID).to(scores.logps.device)
        width = titles.tokens.shape[1]

        def prepacked(values: torch.Tensor) -> torch.Tensor:  # [N, T] -> [B, 1 + D, T]
            return values.new_zeros(*items.shape, width).masked_scatter(
                present[..., None].expand(-1, -1, width), values
            )

        token_logps = prepacked(scores.logps)
        return PreferenceBatch(
            logps=token_logps.sum(dim=2),
            reference_logps=prepacked(reference_scores.logps).sum(dim=2),
            present=present,
            token_logps=token_logps,
            thresholds=prepacked(scores.thresholds) if rank else None,
            choices=prepacked(scores.choices),
        )

    def _titles(self, examples: Sequence[Example], items: np.ndarray) -> Sampled:
        """The titles of items [B, 1 + D], row by row, as completions of their prompts, with the tokens that count."""
        titles = self.policy.titles
        groups, _ = np.nonzero(items != INVALID)
        named = items[items != INVALID]
        lengths = np.array([len(titles.paths[item]) + 1 for item in named])
        tokens = np.full((len(named), int(lengths.max())), titles.end, dtype=np.int64)
        for place, item in enumerate(named):
            tokens[place, : lengths[place] - 1] = titles.paths[item]
        excluded = self.engine.excluded_by([example.row for example in examples])
        # A target is a valid title even where the history has it and the policy would not recommend it again.
        others = [np.setdiff1d(excluded[group], item) for group, item in zip(groups, named, strict=True)]
        decisions = self._decisions(tokens, lengths, others)
        prompts = [example.tokens[: example.prompt].astype(np.int64) for example in examples]
        return Sampled(prompts, tokens, lengths, groups, decisions)

    def _decisions(self, tokens: np.ndarray, lengths: np.ndarray, excluded: Sequence[np.ndarray]) -> Decisions:
        """Which tokens count, and against which others: the constraint's choices, or every token against all."""
        if self.objective.needs.constrained:
            known = torch.from_numpy(tokens), torch.from_numpy(lengths)
            return self.engine.replay(*known, excluded, list_length=1)
        rows, positions = np.nonzero(np.arange(tokens.shape[1]) < lengths[:, None])
        own = torch.from_numpy(tokens[rows, positions])
        nothing = torch.zeros(0, dtype=torch.int64)
        return Decisions(torch.from_numpy(rows), torch.from_numpy(positions), nothing, nothing, own)

    def _score(self, model: torch.nn.Module, titles: Sampled, rank: int) -> TitleScores:
        """Log-probabilities of the tokens that count, and of the `rank`-th best token in their places."""
        decisions, device = titles.decisions, self.policy.device
        rows, positions = decisions.rows.cpu().numpy(), decisions.positions.cpu().numpy()
        logps = torch.zeros(titles.tokens.shape, device=device)
        if not len(rows):  # every token is forced: each title has probability 1
            first = next(model.parameters())
            return TitleScores(logps + 0.0 * first.sum(), logps.clone(), torch.zeros_like(logps, dtype=torch.bool))
        hidden, site_of = hidden_before(model, titles.layout, rows, positions, tree_mask=self.tree_mask)
        score = _among_valid if self.objective.needs.constrained else _among_all
        own, thresholds = score(model, hidden, site_of, decisions, rank)  # [E]
        place = (decisions.rows.to(device), decisions.positions.to(device))
        return TitleScores(
            logps=logps.index_put(place, own),
            thresholds=logps.index_put(place, thresholds),
            choices=torch.zeros_like(logps, dtype=torch.bool).index_put(place, torch.tensor(True, device=device)),
        )


def _among_valid(
    model: torch.nn.Module, hidden: torch.Tensor, site_of: torch.Tensor, decisions: Decisions, rank: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities [E] of decisions' own tokens among the valid ones, and of the `rank`-th best (or last) one."""
    device = hidden.device
    starts, tokens = decisions.starts.to(device), decisions.tokens.to(device)
    columns, column_of = torch.unique(tokens, return_inverse=True)
    place, present = ValidTokens(decisions.rows, starts, column_of).padded()  # [E, C]
    logits = logits_of(model, hidden, columns).float()
    logps = logits[site_of[:, None], place].masked_fill(~present, -torch.inf).log_softmax(dim=1)
    own = logps.gather(1, (decisions.chosen.to(device) - starts[:-1])[:, None])[:, 0]
    if not rank:
        return own, torch.zeros_like(own)
    best = logps.detach().topk(min(rank, logps.shape[1]), dim=1).values
    last = present.sum(dim=1).clamp_max(best.shape[1]) - 1
    return own, best.gather(1, last[:, None])[:, 0]


def _among_all(
    model: torch.nn.Module, hidden: torch.Tensor, site_of: torch.Tensor, decisions: Decisions, rank: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `_among_valid`, over the whole vocabulary; `decisions.chosen` holds the tokens themselves."""
    logps = model.get_output_embeddings()(hidden).float().log_softmax(dim=1)  # [D, V]
    own = logps[site_of, decisions.chosen.to(hidden.device)]
    if not rank:
        return own, torch.zeros_like(own)
    return own, logps.detach().topk(min(rank, logps.shape[1]), dim=1).values[site_of, -1]
