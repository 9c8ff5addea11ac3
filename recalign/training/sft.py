"""Supervised training: a token objective on the answers of the training rows, from a base model to a run folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from recalign import console, registry
from recalign.api import TokenObjective
from recalign.data.dataset import PreparedDataset, Row
from recalign.errors import UserError
from recalign.evaluation.expression import RewardExpression, check_cutoffs, parse_reward
from recalign.generation.engine import Engine
from recalign.training.examples import AnswerExamples, Augmentation, collate
from recalign.training.lora import LoraOptions
from recalign.training.models import Policy, is_builtin, load_policy
from recalign.training.options import TrainingOptions
from recalign.training.steps import TokenStep
from recalign.training.trainer import RecalignTrainer
from recalign.training.validation import BEAM_WIDTH, spread, validation_loss, validation_metric
from recalign.training.weights import Dtype, model_hash
from recalign.workspace import RunFolder, home

LossOn = Literal["auto", "response", "all"]
MODEL_FOLDER = "model"
BUILTIN = "builtin:tiny"


@dataclass(frozen=True)
class SftOptions:
    """What `recalign sft` trains, and how.

    Args:
        model: as `load_policy` takes it.
        objective: name of a token objective.
        params: its parameters.
        training: epochs, batches, learning rate (0: see `default_learning_rate`), validation, checkpoints.
        loss_on: `response`, `all` (the history's tokens too: every item of it is a next-item prediction) or `auto`: all
            for models from scratch with the compact template, where it is the denser signal, else response.
        template: prompt template; None: see `load_policy`.
        lora: train an adapter.
        dtype: of the weights.
        trust_remote_code: run code that comes with the model.
        max_length: most tokens of prompt and response; None: the model's context.
        shuffle_targets: a fresh order of each row's targets every epoch (see Augmentation).
        history_dropout: share of each history's items left out every epoch.
        metric: validation metric besides the loss; None: ndcg over the list (next task: ndcg@10); "" for none.
        valid_rows: how many validation rows to use at most.
    """

    model: str = BUILTIN
    objective: str = "sft"
    params: Mapping[str, Any] = field(default_factory=dict)
    training: TrainingOptions = TrainingOptions()
    loss_on: LossOn = "auto"
    template: str | None = None
    lora: LoraOptions | None = None
    dtype: Dtype = "auto"
    trust_remote_code: bool = False
    max_length: int | None = None
    shuffle_targets: bool = False
    history_dropout: float = 0.0
    metric: str | None = None
    valid_rows: int = 512


def train_supervised(
    dataset: PreparedDataset, out: Path, options: SftOptions, *, resume: bool = False, overwrite: bool = False
) -> dict[str, Any]:
    """Train a model on a prepared dataset; the best checkpoint becomes `OUT/model`.

    Args:
        dataset: whose training rows are learnt and whose validation rows pick the checkpoint.
        out: the run folder.
        options: what and how.
        resume: go on with an unfinished run.
        overwrite: delete what `out` holds.

    Returns:
        The run's results: updates, best validation loss and metric, truncated prompts, seconds.

    Raises:
        UserError: see `RunFolder.begin`, `load_policy`, `RecalignTrainer.run`; an objective that needs rollouts.
        KeyboardInterrupt: interrupted; resumable.
    """
    options = replace(options, training=_with_learning_rate(options))
    objective = _token_objective(options)
    run = RunFolder(out)
    if run.done and not overwrite:
        _claim(run, dataset, options)
        console.say(f"{out} is done already.")
        return dict(run.record["results"])
    policy = load_policy(
        options.model,
        dataset,
        template=options.template,
        lora=options.lora,
        trust_remote_code=options.trust_remote_code,
        dtype=options.dtype,
        seed=options.training.seed,
        trainable=True,
        max_length=options.max_length,
    )
    lesson = _lesson(policy, dataset, objective, options)
    _claim(run, dataset, options, resume=resume, overwrite=overwrite)  # what is wrong with the input has shown by now
    trainer = lesson.trainer(options, out)
    try:
        figures = trainer.run(resume=resume)
    except KeyboardInterrupt:
        if _is_main():
            run.interrupt()
        raise
    if policy.prompter.truncated:
        console.warn(
            f"{policy.prompter.truncated} prompts were longer than {policy.prompter.max_tokens} tokens and lost their "
            "oldest items."
        )
    results = {**figures, "truncated": policy.prompter.truncated, "parameters": _count(policy)}
    if _is_main():
        policy.save(out / MODEL_FOLDER)
        run.finish(results)
    trainer.accelerator.wait_for_everyone()
    return results


def default_learning_rate(model: str, lora: LoraOptions | None) -> float:
    """Return 5e-3 for models from scratch (tiny), 1e-4 for adapters, 2e-5 for full fine-tuning."""
    return 5e-3 if is_builtin(model) else 1e-4 if lora is not None else 2e-5


def ensure_default_model(dataset: PreparedDataset, seed: int = 0) -> Path:
    """Return the workspace's supervised run; train the tiny model on this dataset first where there is none."""
    out = home() / "sft"
    if not RunFolder(out).done:
        console.say(f"No model is trained: training {BUILTIN} on {dataset.path} in {out}.")
        train_supervised(dataset, out, SftOptions(training=TrainingOptions(seed=seed)), resume=True)
    return out


def _with_learning_rate(options: SftOptions) -> TrainingOptions:
    rate = options.training.learning_rate or default_learning_rate(options.model, options.lora)
    return replace(options.training, learning_rate=rate)


def _token_objective(options: SftOptions) -> TokenObjective:
    objective = registry.create("objective", options.objective, options.params)
    if not isinstance(objective, TokenObjective):
        raise UserError(
            f"The objective '{options.objective}' learns from sampled lists, not from the data.",
            f"Use recalign align --objective {options.objective}.",
        )
    if objective.responses_only and options.loss_on == "all":
        raise UserError(
            f"The objective '{options.objective}' is defined on responses only.",
            "Leave --loss-on out, or say response.",
        )
    return objective


def _claim(
    run: RunFolder, dataset: PreparedDataset, options: SftOptions, *, resume: bool = False, overwrite: bool = False
) -> None:
    """Begin the run; one process speaks for all."""
    if _is_main():
        inputs = {"data": dataset.hash, "model": model_hash(options.model)}
        run.begin("sft", asdict(options), inputs, resume=resume, overwrite=overwrite)


@dataclass(frozen=True)
class _Lesson:
    """What is to be learnt, and how it is checked.

    Args:
        step: the loss.
        examples: the training rows.
        all_tokens: whether prompts are learnt too.
        valid: validation rows.
        metric: of decoded lists, or None.
    """

    step: TokenStep
    examples: AnswerExamples
    all_tokens: bool
    valid: Sequence[Row]
    metric: RewardExpression | None

    def validate(self) -> dict[str, float]:
        figures = {"loss": validation_loss(self.step, self.valid)}
        if self.metric is not None:
            figures["metric"] = validation_metric(self.step.engine, self.metric, self.valid)
        return figures

    def trainer(self, options: SftOptions, out: Path) -> RecalignTrainer:
        policy = self.step.policy
        return RecalignTrainer(
            policy,
            self.step,
            options.training,
            out,
            self.examples,
            partial(collate, pad=policy.titles.end, all_tokens=self.all_tokens),
            self.validate,
            length_of=self.examples.length_of,
            title="sft" if options.objective == "sft" else f"sft ({options.objective})",
        )


def _lesson(policy: Policy, dataset: PreparedDataset, objective: TokenObjective, options: SftOptions) -> _Lesson:
    if dataset.task not in objective.tasks:
        raise UserError(
            f"The objective '{options.objective}' is for the task {' or '.join(sorted(objective.tasks))}; this dataset "
            f"is prepared for '{dataset.task}'.",
            "Choose another objective, or prepare the dataset with another --task.",
        )
    if options.training.best_metric == "metric" and options.metric == "":
        raise UserError("--best-on metric needs a metric.", "Leave out --metric none.")
    engine = Engine(policy, dataset.catalogue, exclude_history=dataset.excludes_history)
    dense = policy.from_scratch and policy.prompter.template.source is None and not objective.responses_only
    all_tokens = dense if options.loss_on == "auto" else options.loss_on == "all"
    rows = dataset.rows("train")
    augmentation = Augmentation(options.shuffle_targets, options.history_dropout, options.training.seed)
    # With every token learnt the response is no special part of the window, and all of its targets teach; a response
    # learnt by itself is as long as the lists that will be asked for.
    answer_length = None if all_tokens else dataset.list_length
    return _Lesson(
        step=TokenStep(policy, objective, engine),
        examples=AnswerExamples(policy, rows, answer_length, augmentation=augmentation),
        all_tokens=all_tokens,
        valid=spread(dataset.rows("valid"), options.valid_rows),
        metric=_metric(dataset, options.metric),
    )


def _metric(dataset: PreparedDataset, name: str | None) -> RewardExpression | None:
    size = min(dataset.list_length if dataset.task == "list" else BEAM_WIDTH, len(dataset.catalogue))
    if name == "":
        return None
    metric = parse_reward(name or f"ndcg@{size}").bind(dataset.catalogue)
    check_cutoffs(metric, size)
    return metric


def _count(policy: Policy) -> int:
    return sum(parameter.numel() for parameter in policy.model.parameters())


def _is_main() -> bool:
    return int(os.environ.get("RANK", "0")) == 0
