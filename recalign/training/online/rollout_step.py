"""The training step of alignment: roll out, compute log-probabilities, and run the backward passes part by part."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch

from recalign.api import PolicyBatch
from recalign.decoding.compatibility import beyond_limit
from recalign.decoding.hidden_states import takes_tree_mask
from recalign.decoding.microbatches import microbatches
from recalign.training.accumulation import Accumulation, weighed_loss
from recalign.training.logprobs.completions import completion_logps
from recalign.training.online import diagnostics
from recalign.training.online.rollouts import Rollout, make_rollout
from recalign.training.processes import averaged, process
from recalign.training.speed import Work

if TYPE_CHECKING:
    from recalign.api import RolloutObjective
    from recalign.data.dataset import Rows
    from recalign.decoding.engine import PolicyEngine
    from recalign.metrics.expression import MetricExpression
    from recalign.models.policy import Policy
    from recalign.training.online.prompt_order import PromptOrder
    from recalign.training.online.reference_lists import ReferenceLists


class RolloutStep:
    """A rollout objective as a training step (see `trainer.TrainingStep`); one batch is an update.

    An update is a rollout (or the one before, again), log-probabilities, loss and backward pass, part by part, so that
    memory is bounded by the token budget and not by P or G; the processes' parts need not be equal in number or size.

    Args:
        policy: what is trained.
        engine: samples from it.
        objective: credit and loss.
        expression: the reward, bound.
        rows: the training split.
        prompts: which rows each rollout asks.
        references: stored reference lists, or None.
        reference: gives the reference policy, for the KL.
        updates_per_rollout: updates on the same completions.
        token_budget: tokens a backward pass, padding included.
        kl_every: measure the KL every so many updates where the objective has no use for it.
        seed: of the sampling.
    """

    runs_wrapped = False

    def __init__(
        self,
        policy: Policy,
        engine: PolicyEngine,
        objective: RolloutObjective,
        expression: MetricExpression,
        rows: Rows,
        prompts: PromptOrder,
        references: ReferenceLists | None,
        reference: Callable[[], AbstractContextManager[torch.nn.Module]],
        *,
        updates_per_rollout: int = 1,
        token_budget: int = 16384,
        kl_every: int = 10,
        seed: int = 0,
    ) -> None:
        self.policy, self.engine, self.objective, self.expression = policy, engine, objective, expression
        self.rows, self.prompts, self.references, self.reference = rows, prompts, references, reference
        self.updates_per_rollout, self.token_budget, self.kl_every = updates_per_rollout, token_budget, kl_every
        self.seed = seed
        self.tree_mask = takes_tree_mask(policy.model)
        self.work = Work()
        self.rollout: Rollout | None = None
        self.old_logps: torch.Tensor | None = None
        self.reference_logps: torch.Tensor | None = None  # of this rollout, once they were asked for

    def begin(self, batches: Sequence[Sequence[int]]) -> None:
        """Nothing is done before an update."""

    def accumulate(self, model: torch.nn.Module, batch: Sequence[int], update: Accumulation) -> dict[str, float]:
        """Run one update's forward and backward passes.

        Args:
            model: not used: gradients go to the policy's own parameters, whatever wraps them.
            batch: the number of the update.
            update: adds up the parts.

        Returns:
            Figures to log, of all processes.

        Raises:
            UserError: the objective or the reward misbehaves; the plugin is named.
        """
        number = int(batch[0])
        figures: dict[str, float] = {}
        if number % self.updates_per_rollout == 0 or self.rollout is None:
            with self.work.watch.timing("rollout"):
                self.rollout = self._roll_out(number // self.updates_per_rollout)
            self.old_logps = self.reference_logps = None
            rollout = self.rollout
            figures = diagnostics.rollout_metrics(rollout.all_groups, rollout.credit, rollout.completions)
            if "entropy" in figures:  # nats a decision, of the decisions of all processes
                decisions = int((rollout.completions.logps != 0).sum())
                figures |= averaged({"entropy": figures["entropy"]}, decisions)
        measure_kl = self.objective.needs.reference_logps or number % self.kl_every == 0
        figures |= self._backward(self.rollout, measure_kl, update)
        sampled = self.rollout.sampled
        self.work.add(sampled.prompts, int(sampled.lengths.sum()))
        return averaged(figures, len(self.rollout.sampled))

    def _roll_out(self, number: int) -> Rollout:
        rank, processes = process()
        rows = [self.rows[int(index)] for index in self.prompts.at(number)[rank::processes]]
        return make_rollout(
            self.engine,
            rows,
            self.objective,
            self.expression,
            None if self.references is None else self.references.of(rows),
            list_length=self.engine.policy.prompter.list_length,
            seed=self.seed,
            step=number,
        )

    def _backward(self, rollout: Rollout, measure_kl: bool, update: Accumulation) -> dict[str, float]:
        """Run the passes of an update; figures are averaged over completions."""
        sampled, device = rollout.sampled, self.policy.device
        figures: dict[str, float] = defaultdict(float)
        known = self.old_logps
        old = torch.zeros(sampled.tokens.shape, device=device) if known is None else known
        asked, referred = self.reference_logps is None and measure_kl, self.reference_logps
        if asked:
            referred = torch.zeros(sampled.tokens.shape, device=device)
        tree_mask = self.tree_mask and not beyond_limit(self.policy.model, sampled.layout.reach)
        layout = (sampled.prompts, sampled.lengths, sampled.groups, self.token_budget)
        parts = microbatches(*layout, whole=self.objective.needs.whole_groups, tree_mask=tree_mask)
        figures["pass_tokens"] = max((part.tokens for part in parts), default=0)
        for rows, _ in parts:
            part = sampled.take(rows)
            logps = completion_logps(self.policy.model, part, tree_mask=tree_mask)
            if known is None:
                # The first update after a rollout: what sampled is the present policy, and the ratio is exactly 1.
                old[rows] = logps.detach()
            if asked:
                with self.work.watch.timing("reference"), torch.no_grad(), self.reference() as model:
                    referred[rows] = completion_logps(model, part, tree_mask=tree_mask)
            batch = PolicyBatch(
                logps=logps,
                old_logps=old[rows],
                reference_logps=referred[rows] if measure_kl else None,
                advantages=rollout.advantages[rows].to(device),
                mask=rollout.completions.mask[rows].to(device),
                groups=torch.from_numpy(part.groups).to(device),
            )
            loss, weight, metrics = weighed_loss(self.objective, batch)
            update.add(loss, weight)
            for name, value in metrics.items():
                figures[name] += value * len(rows) / len(sampled)
        if known is None:
            figures["sampling_gap"] = rollout.gap(old.cpu())
        self.old_logps, self.reference_logps = old, referred
        return dict(figures)
