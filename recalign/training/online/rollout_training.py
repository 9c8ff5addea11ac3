"""Trains a policy on its own rollouts: prompts, reference lists, validation, the trainer around the rollout step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from peft import PeftModel
from torch.utils.data import Dataset

from recalign import console
from recalign.decoding.engine import PolicyEngine
from recalign.errors import UserError
from recalign.models.lora import REFERENCE
from recalign.models.policy import reference_policy
from recalign.removal import discard
from recalign.training.batches import SharedUpdates
from recalign.training.online import diagnostics
from recalign.training.online.prompt_order import PromptOrder, choose_prompts
from recalign.training.online.reference_lists import ReferenceKey, ReferenceLists, weights_hash
from recalign.training.online.rollout_step import RolloutStep
from recalign.training.online.rollouts import check_groups
from recalign.training.processes import process
from recalign.training.rows import validation_rows
from recalign.training.trainer import RecalignTrainer, TrainingStep, read_log
from recalign.training.training_options import CHECKPOINTS, TrainingOptions
from recalign.training.validation import REWARD, Validated, validate_lists

if TYPE_CHECKING:
    from recalign.api import RolloutObjective
    from recalign.data.dataset import PreparedDataset
    from recalign.metrics.expression import MetricExpression


class Updates(Dataset[int]):
    """The numbers of all updates: what the trainer's data loader loads."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, update: int) -> int:
        return update


@dataclass(frozen=True)
class RolloutOptions:
    """How rollouts are made and used.

    Args:
        prompts_per_step: P, over all processes.
        rows: train on at most so many training rows, drawn by seed; None: on all.
        valid_rows: validate on at most so many rows; None: see `validation_rows`.
        updates_per_rollout: updates on the same completions.
        token_budget: tokens a backward pass, padding included; sampling may hold keys and values of twice as many.
    """

    prompts_per_step: int = 16
    rows: int | None = None
    valid_rows: int | None = None
    updates_per_rollout: int = 1
    token_budget: int = 16384


@dataclass(frozen=True)
class Schedule:
    """Which prompts the rollouts of a training ask, and how many updates it has.

    Args:
        prompts: rows of each rollout.
        left_out: how many rows the reward is not defined for.
        updates: number of updates; those on one rollout follow each other.
        training: as the trainer takes it: one example is one update, validations and checkpoints fall between rollouts.
    """

    prompts: PromptOrder
    left_out: int
    updates: int
    training: TrainingOptions

    @classmethod
    def of(
        cls, dataset: PreparedDataset, expression: MetricExpression, options: RolloutOptions, training: TrainingOptions
    ) -> Schedule:
        """Lay out a training.

        Raises:
            UserError: the reward is defined for no row; more processes than prompts.
        """
        prompts, left_out = _prompts(dataset, expression, options, training.seed)
        again = options.updates_per_rollout
        if training.eval_every == 0:
            training = replace(training, eval_every=prompts.steps_an_epoch * again)
        updates = training.max_steps or int(np.ceil(training.epochs * prompts.steps_an_epoch)) * again
        return cls(prompts, left_out, updates, _for_updates(training, updates, again))


def align_policy(
    engine: PolicyEngine,
    dataset: PreparedDataset,
    objective: RolloutObjective,
    expression: MetricExpression,
    out: Path,
    training: TrainingOptions,
    options: RolloutOptions,
    *,
    resume: bool = False,
) -> dict[str, Any]:
    """Align the engine's policy in place by rollouts; arguments, result and errors are those of `Family.align`.

    Besides, `curves.png` is written to the run folder, and a row with fewer items left than a group has ranked titles
    is a UserError.
    """
    schedule = Schedule.of(dataset, expression, options, training)
    check_groups(engine, objective, dataset.rows("train"), schedule.prompts.indices)
    console.say(engine.policy.cached_trie.line)
    references, sampled = _references(engine, dataset, objective, training.seed), 0
    if references is not None:
        rollouts = -(-schedule.updates // options.updates_per_rollout)
        sampled = references.ensure(engine, dataset.rows("train"), schedule.prompts.asked(rollouts))
    step = _step(engine, dataset, objective, expression, schedule, references, options)
    return {
        **train_on_rollouts(engine, dataset, step, expression, out, schedule, options, resume=resume),
        "references_sampled": sampled,
        "references": None if references is None else str(references.folder),
        "trie": engine.policy.cached_trie.as_dict(),
    }


def train_on_rollouts(
    engine: PolicyEngine,
    dataset: PreparedDataset,
    step: TrainingStep,
    expression: MetricExpression,
    out: Path,
    schedule: Schedule,
    options: RolloutOptions,
    *,
    resume: bool = False,
) -> dict[str, Any]:
    """Train the engine's policy in place by a step whose batches are the numbers of updates.

    Args:
        engine: bound to the policy.
        dataset: its validation rows pick the checkpoint, by the reward of the lists that the task decodes.
        step: rolls out and computes the loss.
        expression: the reward, bound.
        out: the run folder; `curves.png` is written there too.
        schedule: of the updates.
        options: how rollouts are made.
        resume: go on from the newest checkpoint.

    Returns:
        What `run.json` records, as `Family.align` says.
    """
    valid = validation_rows(engine.policy, dataset.rows("valid"), options.valid_rows)

    def validate() -> Validated:
        return validate_lists(engine, expression, valid, REWARD)

    before = validate()
    start = before.figures[REWARD]
    _forget_half_rollouts(out / CHECKPOINTS, options.updates_per_rollout)
    outcome = RecalignTrainer(
        engine.policy,
        step,
        schedule.training,
        out,
        Updates(schedule.updates),
        collate=list,
        validate=validate,
        batches=SharedUpdates(schedule.updates),
        title=f"{step.objective.name}, reward {expression.text}",
        before=before,
    ).run(resume=resume)
    engine.policy.prompter.tell()
    if outcome["best_reward"] is None or outcome["best_reward"] <= start:
        console.warn(f"no checkpoint beats the starting policy on validation ({start:.4f}); the best after it is kept.")
    return {
        **outcome,
        "start_reward": start,
        "prompts": len(schedule.prompts.indices),
        "left_out": schedule.left_out,
        "truncated": engine.policy.prompter.truncated,
        **_report(out, expression.text, start, engine.policy.device, options.token_budget),
    }


def _prompts(
    dataset: PreparedDataset, expression: MetricExpression, options: RolloutOptions, seed: int
) -> tuple[PromptOrder, int]:
    """Choose the prompts and their order; also, how many rows were left out."""
    processes = process()[1]
    if processes > options.prompts_per_step:
        raise UserError(
            f"{processes} processes share {options.prompts_per_step} prompts a step.", "Raise --prompts-per-step."
        )
    indices, left_out = choose_prompts(dataset.rows("train"), expression, options.rows, seed)
    if left_out:
        console.say(f"{left_out} training rows are left out: {expression.text} is not defined for them.")
    if len(indices) < processes:
        raise UserError(f"{processes} processes share {len(indices)} training rows.", "Lower --num-processes.")
    return PromptOrder(indices, options.prompts_per_step, seed, processes), left_out


def _step(
    engine: PolicyEngine,
    dataset: PreparedDataset,
    objective: RolloutObjective,
    expression: MetricExpression,
    schedule: Schedule,
    references: ReferenceLists | None,
    options: RolloutOptions,
) -> RolloutStep:
    return RolloutStep(
        engine.policy,
        engine,
        objective,
        expression,
        dataset.rows("train"),
        schedule.prompts,
        references,
        reference_policy(engine.policy),
        updates_per_rollout=options.updates_per_rollout,
        token_budget=options.token_budget,
        kl_every=schedule.training.eval_every,
        seed=schedule.training.seed,
    )


def _report(out: Path, reward: str, start: float, device: torch.device, token_budget: int) -> dict[str, Any]:
    """Summarise the log, in lines and in curves."""
    log = read_log(out)
    summary = diagnostics.summarise(log)
    console.say(diagnostics.line(summary))
    held = ("peak_memory_mb", "pass_tokens")
    memory = {name: max((record.get(name, 0) for record in log), default=0) for name in held}
    whose = "the GPU" if device.type == "cuda" else "the process"
    console.say(
        f"Memory: {whose} held at most {memory['peak_memory_mb']:,.0f} MB in a step; a pass had at most "
        f"{memory['pass_tokens']:,.0f} tokens (--token-budget {token_budget})."
    )
    if process()[0] == 0:
        diagnostics.plot_curves(log, reward, start, out / diagnostics.CURVES)
    return {"diagnostics": summary, "memory": memory}


def _for_updates(training: TrainingOptions, updates: int, updates_per_rollout: int) -> TrainingOptions:
    """One example is one update; validations and checkpoints fall between rollouts."""
    every = -(-training.eval_every // updates_per_rollout) * updates_per_rollout
    return replace(
        training,
        max_steps=updates,
        eval_every=min(every, updates),
        batch_size=1,
        gradient_accumulation=1,
        best_metric=REWARD,
        log_every=1,
    )


def _forget_half_rollouts(checkpoints: Path, updates_per_rollout: int) -> None:
    """Remove checkpoints that an interruption wrote between two updates on one rollout: its completions are gone."""
    for path in checkpoints.glob("checkpoint-*"):
        if int(path.name.rpartition("-")[2]) % updates_per_rollout and process()[0] == 0:
            discard(path, inside=checkpoints)


def _references(
    engine: PolicyEngine, dataset: PreparedDataset, objective: RolloutObjective, seed: int
) -> ReferenceLists | None:
    """Open the stored reference lists of this starting policy, if the objective asks for any."""
    needs = objective.needs
    if not needs.reference_lists:
        return None
    policy, prompter = engine.policy, engine.policy.prompter
    fresh = isinstance(policy.model, PeftModel) and REFERENCE not in policy.model.peft_config
    weights = weights_hash(policy.model, without="lora_" if fresh else "")
    return ReferenceLists(
        ReferenceKey(
            model=f"{weights}-{policy.titles.fingerprint}",
            data=dataset.hash,
            template=f"{prompter.template.name} {prompter.template.source} {prompter.max_tokens} "
            f"{prompter.template.variables} {prompter.template.today}",
            exclude_history=engine.exclude_history,
            list_length=prompter.list_length,
            lists=needs.reference_lists,
            temperature=needs.temperature,
            repetition_penalty=needs.repetition_penalty,
            seed=seed,
        )
    )
