"""The training step of rank objectives: rankings of sampled answers, then head and language model, part by part."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from recalign.api import PolicyBatch, RankBatch, Rationales
from recalign.decoding.engine import PolicyEngine
from recalign.tasks.rank import candidates_of
from recalign.training.accumulation import Accumulation, weighed_loss
from recalign.training.online import diagnostics
from recalign.training.online.rank_rollouts import RankingPart, RankRollout, make_rankings
from recalign.training.processes import averaged, process
from recalign.training.speed import Work

if TYPE_CHECKING:
    from recalign.api import RankObjective
    from recalign.data.dataset import Rows
    from recalign.metrics.expression import MetricExpression
    from recalign.training.online.prompt_order import PromptOrder


class PassResult(NamedTuple):
    """Scores [B, K] of sets, and log-probabilities [A, T] of their answers' tokens, 0 where the loss reads none."""

    scores: torch.Tensor
    logps: torch.Tensor


class RankStep:
    """A rank objective as a training step (see `trainer.TrainingStep`); one batch is an update.

    An update is a rollout (or the one before, again) and passes over parts of its answers. A part has whole sets of
    answers, as many as fit the token budget, and the prompts of a row are shared in it. Where the head alone learns,
    and from the scores alone, no pass is made: the head reads the states that sampling came by.

    Args:
        engine: bound to the policy that is trained.
        objective: orders, credit and loss.
        expression: the reward, bound.
        rows: the training split.
        prompts: which rows each rollout asks.
        reference: gives the reference policy, for the KL; None where the loss reads no responses.
        updates_per_rollout: updates on the same answers.
        token_budget: tokens of a pass; a set that is larger has a pass of its own.
        kl_every: measure the KL every so many updates where the objective has no use for it.
        seed: of the sampling.
    """

    runs_wrapped = False

    def __init__(
        self,
        engine: PolicyEngine,
        objective: RankObjective,
        expression: MetricExpression,
        rows: Rows,
        prompts: PromptOrder,
        reference: Callable[[], AbstractContextManager[torch.nn.Module]] | None,
        *,
        updates_per_rollout: int = 1,
        token_budget: int = 16384,
        kl_every: int = 10,
        seed: int = 0,
    ) -> None:
        self.policy, self.engine, self.objective, self.expression = engine.policy, engine, objective, expression
        self.rows, self.prompts, self.reference = rows, prompts, reference
        self.updates_per_rollout, self.token_budget, self.kl_every = updates_per_rollout, token_budget, kl_every
        self.seed = seed
        self.work = Work()
        self.rollout: RankRollout | None = None
        self.old: PassResult | None = None  # of this rollout, under the policy that made it
        self.reference_logps: torch.Tensor | None = None  # [N, T] of this rollout, once they were asked for
        self._reference_engine: PolicyEngine | None = None

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
            self.old = self.reference_logps = None
            figures = diagnostics.ranking_metrics(self.rollout)
        needs = self.objective.needs
        measure_kl = needs.responses and (needs.reference_logps or number % self.kl_every == 0)
        figures |= self._backward(self.rollout, measure_kl, update)
        return averaged(figures, len(self.rollout.sets))

    def _roll_out(self, number: int) -> RankRollout:
        rank, processes = process()
        rows = [self.rows[int(index)] for index in self.prompts.at(number)[rank::processes]]
        return make_rankings(self.engine, rows, self.objective, self.expression, seed=self.seed, step=number)

    def _backward(self, rollout: RankRollout, measure_kl: bool, update: Accumulation) -> dict[str, float]:
        """Run the passes of an update; figures are averaged over sets."""
        figures: dict[str, float] = defaultdict(float)
        first, asked = self.old is None, measure_kl and self.reference_logps is None
        if first:
            self.old = PassResult(torch.zeros_like(rollout.scores), torch.zeros_like(rollout.answers.logps))
        if asked:
            self.reference_logps = torch.zeros_like(rollout.answers.logps)
        parts, figures["pass_tokens"] = self._parts(rollout)
        for part in parts:
            found = self._pass(rollout, part, self.engine)
            if first:  # what sampled is the present policy: the ratios are exactly 1
                self.old.scores[part.sets] = found.scores.detach().cpu()
                self.old.logps[part.answers] = found.logps.detach().cpu()
            if asked:
                with self.work.watch.timing("reference"), torch.no_grad(), self.reference() as model:
                    self.reference_logps[part.answers] = self._pass(rollout, part, self._bound_to(model)).logps.cpu()
            batch = self._batch(rollout, part, found, measure_kl)
            loss, weight, metrics = weighed_loss(self.objective, batch)
            update.add(loss, weight)
            for name, value in metrics.items():
                figures[name] += value * len(part.sets) / len(rollout.sets)
        if first:
            figures["sampling_gap"] = self._gap(rollout)
        return dict(figures)

    def _pass(self, rollout: RankRollout, part: RankingPart, engine: PolicyEngine) -> PassResult:
        """Run the model over some sets, as far as the loss reads more than sampling came by; gradients flow."""
        needs, answers = self.objective.needs, take(rollout.answers, part.answers)
        logps, states = torch.zeros_like(answers.logps), answers.states
        if needs.responses or needs.scores_train_model:
            if not needs.responses:  # states alone
                answers = replace(answers, chosen=torch.zeros_like(answers.chosen))
            logps, states = engine.questions.logps(
                rollout.sets.rows,
                answers,
                form=needs.answering.form,
                max_tokens=needs.answering.max_tokens,
                temperature=needs.temperature,
                states=needs.answering.state,
            )
        assert states is not None, "states were asked for"
        if not needs.scores_train_model:
            states = states.detach()
        return PassResult(part.grid(self.objective.scores(states)), logps)

    def _batch(self, rollout: RankRollout, part: RankingPart, found: PassResult, measured_kl: bool) -> RankBatch:
        device, sets, responses = self.policy.device, rollout.sets, None
        assert self.old is not None, "set before the first loss"
        if self.objective.needs.responses:
            by_set = torch.argsort(part.place)  # answers come by candidate, responses set by set
            mine = part.answers[by_set]
            written = torch.arange(found.logps.shape[1]) < rollout.answers.lengths[mine, None]
            reference = self.reference_logps[mine].to(device) if measured_kl else None
            responses = PolicyBatch(
                logps=found.logps[by_set.to(device)],
                old_logps=self.old.logps[mine].to(device),
                reference_logps=reference,
                advantages=rollout.token_advantages[mine].to(device),
                mask=written.to(device),
                groups=(part.place[by_set] // part.width).to(device),
            )
        return RankBatch(
            scores=found.scores,
            orders=rollout.orders[part.sets].to(device),
            old_scores=self.old.scores[part.sets].to(device),
            advantages=rollout.advantages[part.sets].to(device),
            gains=sets.spread(sets.gains)[part.sets].to(device),
            present=sets.spread(sets.present)[part.sets].to(device),
            responses=responses,
        )

    def _parts(self, rollout: RankRollout) -> tuple[list[RankingPart], int]:
        """Cut the sets into parts that fit the token budget, a row's next to each other; also the largest in tokens.

        What a pass over all of them has to run is counted as work.
        """
        needs, sets, questions = self.objective.needs, rollout.sets, self.policy.prompter.questions
        shared, own = [], []  # tokens of each row: what its prompts begin with, and its questions by column
        for row, candidates in zip(sets.rows, candidates_of(sets.rows), strict=True):
            begin, rest = questions.encode(row, candidates, needs.answering.form)
            shared.append(len(begin))
            own.append(np.array(list(map(len, rest))))
        lengths = rollout.answers.lengths.numpy()
        sizes = np.zeros(len(sets), dtype=np.int64)
        rows = sets.set_of.numpy() // sets.group_size
        asked = np.array([own[row][column] for row, column in zip(rows, sets.column.numpy(), strict=True)])
        np.add.at(sizes, sets.set_of.numpy(), asked + lengths)
        parts: list[list[int]] = []
        held: list[int] = []  # tokens of each part
        for number, size in enumerate(sizes.tolist()):
            owner = number // sets.group_size
            again = bool(parts) and parts[-1][-1] // sets.group_size == owner
            if parts and held[-1] + size + (0 if again else shared[owner]) <= self.token_budget:
                parts[-1].append(number)
                held[-1] += size + (0 if again else shared[owner])
            else:
                parts.append([number])
                held.append(size + shared[owner])
        self.work.rows += len(sets.rows)
        self.work.tokens += sum(shared) + int(sizes.sum())
        return [sets.part(torch.tensor(part)) for part in parts], max(held)

    def _bound_to(self, model: torch.nn.Module) -> PolicyEngine:
        """Return an engine of the reference policy, which may be the policy's own model in another state."""
        return self.engine if model is self.policy.model else self._frozen(model)

    def _frozen(self, model: torch.nn.Module) -> PolicyEngine:
        if self._reference_engine is None:
            engine = self.engine
            self._reference_engine = PolicyEngine(
                replace(self.policy, model=model),
                engine.catalogue,
                exclude_history=engine.exclude_history,
                token_budget=engine.token_budget,
            )
        return self._reference_engine

    def _gap(self, rollout: RankRollout) -> float:
        """Largest difference of the first pass's scores and log-probabilities to those of sampling."""
        assert self.old is not None, "set by the first pass"
        gap = (self.old.scores - rollout.scores).abs().max()
        if self.objective.needs.responses:
            gap = torch.maximum(gap, (self.old.logps - rollout.answers.logps).abs().max())
        return float(gap)


def take(answers: Rationales, rows: torch.Tensor) -> Rationales:
    """Return some answers."""
    named = {each.name: getattr(answers, each.name) for each in fields(answers)}
    texts = [answers.texts[row] for row in rows.tolist()]
    cut = {name: value[rows.to(value.device)] for name, value in named.items() if isinstance(value, torch.Tensor)}
    return Rationales(**{**named, **cut, "texts": texts})
