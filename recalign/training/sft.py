"""Supervised training: a token or preference objective on the answers of the training rows, to a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from recalign import console, registry
from recalign.api import PreferenceObjective, TokenObjective
from recalign.data.chat import Scalar
from recalign.data.dataset import PreparedDataset
from recalign.errors import UserError
from recalign.evaluation.expression import RewardExpression, check_cutoffs, parse_reward
from recalign.generation.engine import Engine
from recalign.training.diagnostics import CURVES
from recalign.training.examples import Augmentation
from recalign.training.lessons import (
    Check,
    DataObjective,
    Lesson,
    LossOn,
    check_objective,
    preference_lesson,
    token_lesson,
)
from recalign.training.lora import LoraOptions
from recalign.training.models import Policy, is_builtin, load_policy
from recalign.training.options import CHECKPOINTS, TrainingOptions
from recalign.training.self_play import FOLDER as ROUNDS
from recalign.training.trainer import LOG_FILE
from recalign.training.validation import BEAM_WIDTH, spread
from recalign.training.weights import Dtype, model_hash
from recalign.workspace import RunFolder, home

MODEL_FOLDER = "model"
MAKES = (MODEL_FOLDER, CHECKPOINTS, LOG_FILE, ROUNDS, CURVES)
"""What a training run writes, beside run.json."""
BUILTIN = "builtin:tiny"


@dataclass(frozen=True)
class SftOptions:
    """What `recalign sft` trains, and how.

    Args:
        model: as `load_policy` takes it.
        objective: name of a token or preference objective.
        params: its parameters.
        training: epochs, batches, learning rate (0: see `default_learning_rate`), validation, checkpoints.
        loss_on: `response`, `all` (the history's tokens too: every item of it is a next-item prediction) or `auto`: all
            for models from scratch with the compact template, where it is the denser signal, else response.
        template: prompt template; None: see `load_policy`.
        template_vars: variables of the template and of the model's chat template.
        lora: train an adapter.
        dtype: of the weights.
        trust_remote_code: run code that comes with the model.
        max_length: most tokens of prompt and response; None: the model's context.
        shuffle_targets: a fresh order of each row's targets every epoch (see Augmentation).
        history_dropout: share of each history's items left out every epoch.
        metric: validation metric besides the losses; None: ndcg over the list (next task: ndcg@10); "" for none.
        valid_rows: how many validation rows to use at most.
    """

    model: str = BUILTIN
    objective: str = "sft"
    params: Mapping[str, Any] = field(default_factory=dict)
    training: TrainingOptions = TrainingOptions()
    loss_on: LossOn = "auto"
    template: str | None = None
    template_vars: Mapping[str, Scalar] = field(default_factory=dict)
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
        The run's results: updates, best validation figure and its update, truncated prompts, seconds.

    Raises:
        UserError: see `RunFolder.begin`, `load_policy`, `RecalignTrainer.run`; an objective that needs rollouts.
        KeyboardInterrupt: interrupted; resumable.
    """
    objective = _objective(options, dataset)
    options = replace(options, training=_with_defaults(options, objective))
    run = RunFolder(out)
    if run.done and not overwrite:
        _claim(run, dataset, options)
        console.say(f"{out} is done already.")
        return dict(run.record["results"])
    policy = load_policy(
        options.model,
        dataset,
        template=options.template,
        template_vars=options.template_vars,
        lora=options.lora,
        trust_remote_code=options.trust_remote_code,
        dtype=options.dtype,
        seed=options.training.seed,
        trainable=True,
        max_length=options.max_length,
    )
    lesson = _lesson(policy, dataset, objective, options)
    _claim(run, dataset, options, resume=resume, overwrite=overwrite)  # what is wrong with the input has shown by now
    title = "sft" if options.objective == "sft" else f"sft ({options.objective})"
    trainer = lesson.trainer(options.training, out, title)
    try:
        figures = trainer.run(resume=resume)
    except KeyboardInterrupt:
        if console.speaks():
            run.interrupt()
        raise
    policy.prompter.tell()
    best_on = options.training.best_metric
    results = {**figures, "best_on": best_on, "truncated": policy.prompter.truncated, "parameters": _count(policy)}
    if console.speaks():
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
        training = TrainingOptions(seed=seed, epochs=5.0, learning_rate=0.0)  # what `recalign sft` does by default
        train_supervised(dataset, out, SftOptions(training=training), resume=True)
    return out


def _with_defaults(options: SftOptions, objective: DataObjective) -> TrainingOptions:
    """Fill in the learning rate and what picks the checkpoint.

    A token objective's own loss on validation rows does: one that trains the probabilities over valid tokens leaves the
    cross-entropy over the whole vocabulary to chance. Preference training may lower the likelihood of targets too, so
    neither their cross-entropy tells which checkpoint ranks best; the metric of decoded lists does.

    Raises:
        UserError: by the loss of a preference objective.
    """
    preference = isinstance(objective, PreferenceObjective)
    best = options.training.best_metric
    if best == "auto":
        best = "loss" if not preference else "metric" if options.metric != "" else "cross_entropy"
    if best == "loss" and preference:
        raise UserError(
            f"The loss of '{objective.name}' is not known on validation rows, which have no rejected titles.",
            "Use --best-on metric or --best-on cross-entropy.",
        )
    rate = options.training.learning_rate or default_learning_rate(options.model, options.lora)
    return replace(options.training, learning_rate=rate, best_metric=best)


def _objective(options: SftOptions, dataset: PreparedDataset) -> DataObjective:
    objective = registry.create("objective", options.objective, options.params)
    if not isinstance(objective, TokenObjective | PreferenceObjective):
        raise UserError(
            f"The objective '{options.objective}' learns from sampled lists, not from the data.",
            f"Use recalign align --objective {options.objective}.",
        )
    preference = isinstance(objective, PreferenceObjective)
    if preference and objective.rounds is not None:
        raise UserError(
            f"The objective '{options.objective}' trains in rounds, against its own recommendations.",
            f"Use recalign align --objective {options.objective}.",
        )
    check_objective(objective, dataset, options.model)
    if options.loss_on == "all" and (preference or objective.responses_only):
        raise UserError(
            f"The objective '{options.objective}' is defined on responses only.",
            "Leave --loss-on out, or say response.",
        )
    return objective


def _claim(
    run: RunFolder, dataset: PreparedDataset, options: SftOptions, *, resume: bool = False, overwrite: bool = False
) -> None:
    """Begin the run; one process speaks for all."""
    if console.speaks():
        inputs = {"data": dataset.hash, "model": model_hash(options.model)}
        run.begin("sft", asdict(options), inputs, resume=resume, overwrite=overwrite, makes=MAKES)


def _lesson(policy: Policy, dataset: PreparedDataset, objective: DataObjective, options: SftOptions) -> Lesson:
    training, rows = options.training, dataset.rows("train")
    if training.best_metric == "metric" and options.metric == "":
        raise UserError("--best-on metric needs a metric.", "Leave out --metric none.")
    engine = Engine(policy, dataset.catalogue, exclude_history=dataset.excludes_history)
    valid = spread(dataset.rows("valid"), options.valid_rows)
    if isinstance(objective, PreferenceObjective):
        check = Check(engine, valid, _metric(dataset, options.metric))
        return preference_lesson(objective, check, rows, seed=training.seed, batch_size=training.batch_size)
    check = Check(engine, valid, _metric(dataset, options.metric), objective=objective)
    augmentation = Augmentation(options.shuffle_targets, options.history_dropout, training.seed)
    return token_lesson(objective, check, rows, loss_on=options.loss_on, augmentation=augmentation)


def _metric(dataset: PreparedDataset, name: str | None) -> RewardExpression | None:
    size = min(dataset.list_length if dataset.task == "list" else BEAM_WIDTH, len(dataset.catalogue))
    if name == "":
        return None
    metric = parse_reward(name or f"ndcg@{size}").bind(dataset.catalogue)
    check_cutoffs(metric, size)
    return metric


def _count(policy: Policy) -> int:
    return sum(parameter.numel() for parameter in policy.model.parameters())
