"""Alignment: a starting policy, an objective and a reward in, a better policy and a report of how it went out."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from peft import PeftModel
from torch.utils.data import Dataset

from recalign import console
from recalign.api import Predictions, Row, UserError
from recalign.evaluation.metrics import evaluate_lists
from recalign.generation.engine import Engine
from recalign.training import diagnostics
from recalign.training.lora import REFERENCE
from recalign.training.models import Policy, reference_policy
from recalign.training.options import CHECKPOINTS, TrainingOptions
from recalign.training.processes import process
from recalign.training.references import ReferenceKey, ReferenceLists, weights_hash
from recalign.training.rollout_step import RolloutStep
from recalign.training.schedule import Prompts, UpdateSampler, choose_prompts
from recalign.training.trainer import RecalignTrainer, read_log

if TYPE_CHECKING:
    from recalign.api import RolloutObjective
    from recalign.data.dataset import PreparedDataset
    from recalign.evaluation.expression import RewardExpression


@dataclass(frozen=True)
class AlignOptions:
    """How to align, beside what TrainingOptions say.

    Args:
        training: learning rate, updates, validation.
        prompts_per_step: P, over all processes.
        prompts: train on at most so many training rows, drawn by seed; None: on all.
        valid_rows: validate on at most so many rows; None: on all.
        updates_per_rollout: updates on the same completions.
        token_budget: packed tokens a backward pass, and of keys and values in sampling.
        exclude_history: whether items of the history are ruled out.
    """

    training: TrainingOptions
    prompts_per_step: int = 16
    prompts: int | None = None
    valid_rows: int | None = None
    updates_per_rollout: int = 1
    token_budget: int = 16384
    exclude_history: bool = False


@dataclass(frozen=True)
class Validation:
    """Greedy lists on validation rows, scored by the reward.

    Args:
        engine: the current policy.
        expression: the reward, bound.
        rows: validation rows for which it is defined.
    """

    engine: Engine
    expression: RewardExpression
    rows: Sequence[Row]

    @classmethod
    def of(
        cls, engine: Engine, expression: RewardExpression, dataset: PreparedDataset, limit: int | None
    ) -> Validation:
        """Take the validation split's rows that the reward is defined for, the first `limit` of them.

        Raises:
            UserError: there are none.
        """
        rows: list[Row] = []
        for row in dataset.rows("valid"):
            if expression.defined_for(row):
                rows.append(row)
                if len(rows) == limit:
                    break
        if not rows:
            raise UserError(
                f"The reward {expression.text} is defined for no validation row.",
                "Prepare the dataset with another --relevance or split.",
            )
        return cls(engine, expression, rows)

    def __call__(self) -> dict[str, float]:
        """Return the mean reward and the share of positions that hold an item."""
        lists = self.engine.greedy(self.rows, list_length=self.engine.policy.prompter.list_length)
        items = lists.items.numpy()
        values = evaluate_lists(self.expression, items, np.full(len(items), items.shape[1]), self.rows)
        return {"reward": float(values.mean()), "validity": float((items >= 0).mean())}


class Updates(Dataset[int]):
    """The numbers of all updates: what the trainer's data loader loads."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, update: int) -> int:
        return update


def align_policy(
    policy: Policy,
    dataset: PreparedDataset,
    objective: RolloutObjective,
    expression: RewardExpression,
    out: Path,
    options: AlignOptions,
    *,
    resume: bool = False,
) -> dict[str, Any]:
    """Align a policy in place; checkpoints, `log.jsonl` and `curves.png` are written to the run folder.

    Args:
        policy: the starting policy, trainable.
        dataset: prompts and targets.
        objective: credit and loss.
        expression: the reward, bound to the dataset's catalogue.
        out: the run folder.
        options: how to train.
        resume: go on from the newest checkpoint.

    Returns:
        What run.json records: updates, validation before and best, diagnostics, seconds, rows left out.

    Raises:
        UserError: the reward or the objective misbehaves, or the reward is defined for no row.
        KeyboardInterrupt: after Ctrl-C, when the present update is done and a checkpoint is saved.
    """
    engine = Engine(
        policy, dataset.catalogue, exclude_history=options.exclude_history, token_budget=options.token_budget
    )
    seed, rows = options.training.seed, dataset.rows("train")
    indices, left_out = choose_prompts(rows, expression, options.prompts, seed)
    if left_out:
        console.say(f"{left_out} training rows are left out: {expression.text} is not defined for them.")
    prompts = Prompts(indices, options.prompts_per_step, seed)
    if process()[1] > options.prompts_per_step:
        raise UserError(
            f"{process()[1]} processes share {options.prompts_per_step} prompts a step.", "Raise --prompts-per-step."
        )
    updates = options.training.max_steps
    updates = updates or int(np.ceil(options.training.epochs * prompts.steps_an_epoch)) * options.updates_per_rollout
    rollouts = -(-updates // options.updates_per_rollout)
    validation = Validation.of(engine, expression, dataset, options.valid_rows)
    references = _references(policy, engine, dataset, objective, options)
    sampled = 0 if references is None else references.ensure(engine, rows, prompts.asked(rollouts))
    step = RolloutStep(
        policy,
        engine,
        objective,
        expression,
        rows,
        prompts,
        references,
        reference_policy(policy),
        updates_per_rollout=options.updates_per_rollout,
        token_budget=options.token_budget,
        kl_every=options.training.eval_every,
        seed=seed,
    )
    start = validation()
    trainer = _trainer(policy, step, options, out, updates, validation, objective.name)
    outcome = trainer.run(resume=resume)
    log = read_log(out)
    summary, seconds = diagnostics.summarise(log), diagnostics.seconds_by_part(log)
    console.say(diagnostics.line(summary, seconds))
    if process()[0] == 0:
        diagnostics.plot_curves(log, expression.text, start["reward"], out / "curves.png")
    if outcome["best_reward"] is None or outcome["best_reward"] <= start["reward"]:
        console.warn(
            f"no checkpoint beats the starting policy on validation ({start['reward']:.4f}); the best after it is kept."
        )
    return {
        **outcome,
        "start_reward": start["reward"],
        "prompts": len(indices),
        "left_out": left_out,
        "references_sampled": sampled,
        "references": None if references is None else str(references.folder),
        "diagnostics": summary,
        "seconds_a_step": seconds,
    }


def greedy_predictions(engine: Engine, rows: Sequence[Row]) -> Predictions:
    """Decode one list a row greedily."""
    lists = engine.greedy(rows, list_length=engine.policy.prompter.list_length)
    items = lists.items.numpy()
    scores = np.repeat(lists.logps.sum(dim=1, keepdim=True).double().numpy(), items.shape[1], axis=1)
    return Predictions(items, scores, np.full(len(items), items.shape[1]))


def _trainer(
    policy: Policy,
    step: RolloutStep,
    options: AlignOptions,
    out: Path,
    updates: int,
    validation: Validation,
    title: str,
) -> RecalignTrainer:
    """Build the trainer: one example is one update; validation and checkpoints fall between rollouts."""
    _forget_half_rollouts(out / CHECKPOINTS, options.updates_per_rollout)
    every = -(-options.training.eval_every // options.updates_per_rollout) * options.updates_per_rollout
    training = replace(
        options.training,
        max_steps=updates,
        eval_every=min(every, updates),
        batch_size=1,
        gradient_accumulation=1,
        best_metric="reward",
        log_every=1,
    )
    return RecalignTrainer(
        policy,
        step,
        training,
        out,
        Updates(updates),
        collate=list,
        validate=validation,
        sampler=UpdateSampler(updates, process()[1]),
        runs_backward=True,
        title=title,
    )


def _forget_half_rollouts(checkpoints: Path, updates_per_rollout: int) -> None:
    """Remove checkpoints that an interruption wrote between two updates on one rollout: its completions are gone."""
    for path in checkpoints.glob("checkpoint-*"):
        if int(path.name.rpartition("-")[2]) % updates_per_rollout:
            shutil.rmtree(path)


def _references(
    policy: Policy, engine: Engine, dataset: PreparedDataset, objective: RolloutObjective, options: AlignOptions
) -> ReferenceLists | None:
    """Open the stored reference lists of this starting policy, if the objective asks for any."""
    if not objective.reference_lists:
        return None
    fresh = isinstance(policy.model, PeftModel) and REFERENCE not in policy.model.peft_config
    weights = weights_hash(policy.model, without="lora_" if fresh else "")
    return ReferenceLists(
        ReferenceKey(
            model=f"{weights}-{policy.titles.fingerprint}",
            data=dataset.hash,
            template=f"{policy.prompter.template.name} {policy.prompter.template.source} {policy.prompter.max_tokens}",
            exclude_history=engine.exclude_history,
            list_length=policy.prompter.list_length,
            lists=objective.reference_lists,
            temperature=objective.params.temperature,
            repetition_penalty=objective.params.repetition_penalty,
            seed=options.training.seed,
        )
    )
