"""Supervised training: a token or preference objective on the answers of the training rows, to a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from recalign import console
from recalign.api import RATIONALE, Backbone, Objective
from recalign.data.dataset import PreparedDataset
from recalign.decoding.engine import PolicyEngine
from recalign.errors import UserError
from recalign.metrics.expression import MetricExpression, check_cutoffs, parse_expression
from recalign.models.builtin import is_from_scratch
from recalign.models.hardware import ANY, Dtype, Hardware
from recalign.models.item_embeddings import check_identifier
from recalign.models.lora import LoraOptions
from recalign.models.policy import Policy
from recalign.models.trained_on import noted
from recalign.models.weights import check_model, has_adapter, model_hash
from recalign.plugins import registry
from recalign.rationales.examples import RationaleRows, rationale_rows
from recalign.runs.lifecycle import Asked, perform
from recalign.tasks import find_task
from recalign.text.chat_templates import Scalar
from recalign.training.families import family_of
from recalign.training.family import LossOn, SupervisedData
from recalign.training.launch import check_launch
from recalign.training.offline.examples import Augmentation
from recalign.training.offline.self_play import FOLDER as ROUNDS
from recalign.training.online.diagnostics import CURVES
from recalign.training.processes import connect
from recalign.training.rows import VALIDATED, drawn_rows, validation_rows
from recalign.training.setup import TrainingSetup
from recalign.training.starting_policy import starting_policy
from recalign.training.trackers import FOLDER as TENSORBOARD
from recalign.training.trainer import LOG_FILE
from recalign.training.training_options import CHECKPOINTS, TrainingOptions
from recalign.workspace import RunFolder, file_hash, home

MODEL_FOLDER = "model"
MAKES = (MODEL_FOLDER, CHECKPOINTS, LOG_FILE, ROUNDS, CURVES, TENSORBOARD)
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
        hardware: device, attention, quantised weights.
        dtype: of the weights.
        trust_remote_code: run code that comes with the model.
        max_length: most tokens of prompt and response; None: the model's context.
        shuffle_targets: a fresh order of each row's targets every epoch (see Augmentation).
        history_dropout: share of each history's items left out every epoch.
        backbone: name of a backbone that computes the embeddings of item tokens; None: that of the model, if any.
        backbone_params: its parameters.
        rationales: a file of rationales that are learnt in place of all training rows' answers; None: there is none.
        metric: validation metric besides the losses; None: ndcg over the list (next task: ndcg@10); "" for none.
        rows: train on at most so many training rows, drawn by seed; None: on all.
        valid_rows: how many validation rows to use at most; None: see `validation_rows`.
    """

    model: str = BUILTIN
    objective: str = "sft"
    params: Mapping[str, Any] = field(default_factory=dict)
    training: TrainingOptions = TrainingOptions()
    loss_on: LossOn = "auto"
    template: str | None = None
    template_vars: Mapping[str, Scalar] = field(default_factory=dict)
    lora: LoraOptions | None = None
    hardware: Hardware = ANY
    dtype: Dtype = "auto"
    trust_remote_code: bool = False
    max_length: int | None = None
    shuffle_targets: bool = False
    history_dropout: float = 0.0
    backbone: str | None = None
    backbone_params: Mapping[str, Any] = field(default_factory=dict)
    rationales: str | None = None
    metric: str | None = None
    rows: int | None = None
    valid_rows: int | None = None


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
    check_launch(options.training, options.hardware)
    objective = registry.create("objective", options.objective, options.params)
    family = family_of(objective)
    family.check_supervised(objective, options.loss_on)
    check_model(options.model, options.trust_remote_code)
    family.check(objective, dataset, options.model)
    options = replace(options, training=_with_defaults(options, objective))
    backbone = _backbone(options, dataset)
    rationales = None
    if options.rationales is not None:
        family.check_rationales(objective)
        rationales = rationale_rows(Path(options.rationales), dataset, options.training.seed)
    files = [*(backbone.files if backbone is not None else ()), *filter(None, [options.rationales])]
    read = {str(file): file_hash(Path(file)) for file in files if Path(file).exists()}
    inputs = {"data": dataset.hash, "model": model_hash(options.model), **read}

    def ready() -> TrainingSetup:
        connect(options.hardware.place())
        texts = rationales.texts if rationales is not None else ()
        policy = starting_policy(options, dataset, objective, backbone=backbone, texts=texts)
        return _setup(policy, dataset, objective, options, rationales)

    return perform(
        RunFolder(out),
        Asked("sft", asdict(options), inputs, MAKES, noted(dataset, options.training.seed)),
        ready,
        lambda setup: _trained(setup, out, options, resume),
        resume=resume,
        overwrite=overwrite,
    )


def _backbone(options: SftOptions, dataset: PreparedDataset) -> Backbone | None:
    """Make the backbone that the options name, and refuse one that does not fit before a model is loaded."""
    if options.backbone is None:
        if options.backbone_params:
            raise UserError("There are parameters of a backbone, and no backbone.", "Name it with --backbone.")
        return None
    check_identifier(options.backbone, dataset.identifier)
    backbone: Backbone = registry.create("backbone", options.backbone, options.backbone_params)
    return backbone


def _trained(setup: TrainingSetup, out: Path, options: SftOptions, resume: bool) -> dict[str, Any]:
    """Train, and save the model; the results."""
    policy = setup.validation.engine.policy
    title = "sft" if options.objective == "sft" else f"sft ({options.objective})"
    trainer = setup.trainer(options.training, out, title)
    figures = trainer.run(resume=resume)
    policy.prompter.tell()
    if console.speaks():
        policy.save(out / MODEL_FOLDER)
    trainer.accelerator.wait_for_everyone()
    best_on = options.training.best_metric
    return {**figures, "best_on": best_on, "truncated": policy.prompter.truncated, "parameters": _count(policy)}


def default_learning_rate(model: str, lora: LoraOptions | None) -> float:
    """Return 5e-3 for models from scratch (tiny), 1e-4 for adapters, new or trained further, 2e-5 for all weights."""
    if is_from_scratch(model):
        return 5e-3
    return 1e-4 if lora is not None or has_adapter(model) else 2e-5


def ensure_default_model(dataset: PreparedDataset, seed: int = 0) -> Path:
    """Return the workspace's supervised run; train the tiny model on this dataset first where there is none."""
    out = home() / "sft"
    if not RunFolder(out).done:
        console.say(f"No model is trained: training {BUILTIN} on {dataset.path} in {out}.")
        training = TrainingOptions(seed=seed, epochs=5.0, learning_rate=0.0)  # what `recalign sft` does by default
        train_supervised(dataset, out, SftOptions(training=training), resume=True)
    return out


def _with_defaults(options: SftOptions, objective: Objective) -> TrainingOptions:
    """Fill in the learning rate and what picks the checkpoint.

    Raises:
        UserError: by a figure that validation does not have.
    """
    wanted, measured = options.training.best_metric, options.metric != ""
    best = family_of(objective).best_metric(objective, wanted, measured=measured)
    if best == "metric" and not measured:
        raise UserError("--best-on metric needs a metric.", "Leave out --metric none.")
    rate = options.training.learning_rate or default_learning_rate(options.model, options.lora)
    return replace(options.training, learning_rate=rate, best_metric=best)


def _setup(
    policy: Policy,
    dataset: PreparedDataset,
    objective: Objective,
    options: SftOptions,
    rationales: RationaleRows | None,
) -> TrainingSetup:
    if rationales is not None:
        _answer_with_rationales(policy, rationales)
    data = SupervisedData(
        engine=PolicyEngine(policy, dataset.catalogue, exclude_history=dataset.excludes_history()),
        rows=drawn_rows(
            dataset.rows("train") if rationales is None else rationales.train, options.rows, options.training.seed
        ),
        valid=validation_rows(policy, dataset.rows("valid"), options.valid_rows),
        metric=_metric(dataset, options.metric),
        loss_on=options.loss_on,
        augmentation=Augmentation(options.shuffle_targets, options.history_dropout, options.training.seed),
        valid_answers=None if rationales is None else rationales.valid[: options.valid_rows or VALIDATED],
    )
    return family_of(objective).supervised(objective, data, options.training)


def _answer_with_rationales(policy: Policy, rationales: RationaleRows) -> None:
    """Note among the model's settings that it answers with rationales, as long as those that it learns.

    What opens the decision is written by the model too, at the end of its text.

    Raises:
        UserError: the longest does not fit what prompts leave.
    """
    questions = policy.prompter.questions
    decision = questions.decision(RATIONALE)
    lengths = [
        questions.answer(row.question.form, True, row.question.rationale)[1]
        for row in (*rationales.train, *rationales.valid)
    ]
    longest, room = max(lengths), questions.reserved - decision.longest
    if questions.limit is not None and longest > room:
        raise UserError(
            f"The longest rationale has {longest} tokens, and prompts leave {room} for it.",
            "Raise --max-length, or shorten the rationale.",
        )
    written = longest + len(decision.opening)
    policy.settings["answering"] = asdict(replace(policy.answering, form=RATIONALE, max_tokens=written))


def _metric(dataset: PreparedDataset, name: str | None) -> MetricExpression | None:
    if name == "":
        return None
    task, items = find_task(dataset.task), len(dataset.catalogue)
    metric = parse_expression(name or task.default_metric(dataset.list_length, items)).bind(dataset.catalogue)
    for harm in metric.harms:
        console.warn(f"Of {harm} lower values are better, yet the highest metric is the best; did you mean -{harm}?")
    check_cutoffs(metric, min(task.list_size(dataset.list_length), items))
    return metric


def _count(policy: Policy) -> int:
    return sum(parameter.numel() for parameter in policy.model.parameters())
