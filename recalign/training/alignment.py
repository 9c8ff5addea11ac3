"""Alignment: a starting policy, an objective and a reward in, a better policy and a report of how it went out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from recalign import console
from recalign.api import Objective, Row
from recalign.data.dataset import ExcludeHistory, PreparedDataset
from recalign.decoding.engine import PolicyEngine
from recalign.evaluation.tables import BeforeAfter, before_after
from recalign.metrics.expression import MetricExpression, parse_expression
from recalign.models.builtin import is_from_scratch
from recalign.models.hardware import ANY, Dtype, Hardware
from recalign.models.lora import LoraOptions
from recalign.models.policy import Policy
from recalign.models.settings import recorded_settings
from recalign.models.trained_on import noted
from recalign.models.weights import check_model, find_model, has_adapter, model_hash
from recalign.plugins import registry
from recalign.runs.lifecycle import Asked, perform
from recalign.tasks import find_task
from recalign.text.chat_templates import Scalar
from recalign.training.families import family_of
from recalign.training.launch import check_launch
from recalign.training.online.rollout_training import RolloutOptions
from recalign.training.processes import connect
from recalign.training.rows import affordable, evenly_spaced
from recalign.training.starting_policy import starting_policy
from recalign.training.supervised import MAKES, MODEL_FOLDER
from recalign.training.training_options import TrainingOptions
from recalign.workspace import RunFolder

FROM_SCRATCH = {"learning_rate": 1e-3, "max_steps": 120}
"""From random weights: the model is small and takes large steps (measured on the embedded dataset)."""
PRETRAINED = {"learning_rate": 5e-6, "max_steps": 0}
"""BLADE's: learning rate 5e-6, by epochs (3). Adapters take ten times the rate."""


@dataclass(frozen=True)
class AlignOptions:
    """What `recalign align` trains, and how.

    Args:
        model: the starting policy, as `load_policy` takes it.
        objective: its name.
        reward: the expression, which rollouts are rewarded by and lists validated by.
        params: the objective's parameters.
        training: learning rate, epochs and updates (0: see `with_defaults`), validation, checkpoints.
        rollout: how rollouts are made and used; on the data's answers, a prompt is a row.
        exclude_history: never recommend items of the history; auto: as the dataset says.
        template: prompt template; None: see `load_policy`.
        template_vars: variables of the template and of the model's chat template.
        lora: train an adapter.
        hardware: device, attention, quantised weights.
        dtype: of the weights.
        trust_remote_code: run code that comes with the model.
        max_length: most tokens of prompt and response; None: as the model was trained.
        report: compare with the starting policy on the test split.
    """

    model: str
    objective: str = "blade"
    reward: str = "ndcg"
    params: Mapping[str, Any] = field(default_factory=dict)
    training: TrainingOptions = TrainingOptions(
        learning_rate=0.0, epochs=0.0, schedule="linear", warmup=0.0, weight_decay=0.0, eval_every=10
    )
    rollout: RolloutOptions = RolloutOptions()
    exclude_history: ExcludeHistory = "auto"
    template: str | None = None
    template_vars: Mapping[str, Scalar] = field(default_factory=dict)
    lora: LoraOptions | None = None
    hardware: Hardware = ANY
    dtype: Dtype = "auto"
    trust_remote_code: bool = False
    max_length: int | None = None
    report: bool = True


def with_defaults(options: AlignOptions) -> AlignOptions:
    """Fill in what depends on model and objective: learning rate, updates, and how many reference lists.

    Raises:
        UserError: updates are counted for an objective that trains in rounds.
    """
    scratch = _starts_from_scratch(options.model)
    defaults = FROM_SCRATCH if scratch else PRETRAINED
    rate = defaults["learning_rate"] * (10 if options.lora is not None or has_adapter(options.model) else 1)
    training = replace(options.training, learning_rate=options.training.learning_rate or rate)
    objective = registry.create("objective", options.objective, options.params)
    training = family_of(objective).training_defaults(objective, training, defaults["max_steps"], epochs=3.0)
    suited = objective.from_scratch if scratch else {}
    params = {**options.params, **{name: value for name, value in suited.items() if name not in options.params}}
    return replace(options, training=training, params=params)


def _starts_from_scratch(model: str) -> bool:
    """Tell whether a model's weights started from random numbers, without loading it."""
    folder = None if is_from_scratch(model) else find_model(model)
    return is_from_scratch(str(recorded_settings(folder).get("base_model", model)))


def train_aligned(
    dataset: PreparedDataset, out: Path, options: AlignOptions, *, resume: bool = False, overwrite: bool = False
) -> dict[str, Any]:
    """Align a model on a prepared dataset; the best checkpoint becomes `OUT/model`.

    Args:
        dataset: prompts and targets; its validation rows pick the checkpoint.
        out: the run folder.
        options: what and how.
        resume: go on with an unfinished run.
        overwrite: delete what `out` holds.

    Returns:
        The run's results, among them `report`: metrics before and after on the test split.

    Raises:
        UserError: see `RunFolder.begin`, `load_policy`, `Family.align`; an objective for another task;
            `@k` beyond the lists.
        KeyboardInterrupt: interrupted; resumable.
    """
    check_launch(options.training, options.hardware)
    check_model(options.model, options.trust_remote_code)
    options = with_defaults(options)
    objective = registry.create("objective", options.objective, options.params)
    family_of(objective).check(objective, dataset, options.model)
    expression = _reward(options.reward, dataset, objective)
    inputs = {"data": dataset.hash, "model": model_hash(options.model)}

    def ready() -> Policy:
        connect(options.hardware.place())
        return starting_policy(options, dataset, objective)

    return perform(
        RunFolder(out),
        Asked("align", asdict(options), inputs, MAKES, noted(dataset, options.training.seed)),
        ready,
        lambda policy: _aligned(policy, dataset, objective, expression, out, options, resume),
        resume=resume,
        overwrite=overwrite,
    )


def _aligned(
    policy: Policy,
    dataset: PreparedDataset,
    objective: Objective,
    expression: MetricExpression,
    out: Path,
    options: AlignOptions,
    resume: bool,
) -> dict[str, Any]:
    """Align, between two looks at the test split, and save the model; the results."""
    exclude = dataset.excludes_history(options.exclude_history)
    engine = PolicyEngine(
        policy, dataset.catalogue, exclude_history=exclude, token_budget=2 * options.rollout.token_budget
    )
    rows = _reported(policy, dataset.rows("test")) if options.report else []
    task = find_task(dataset.task)
    before = task.decode(engine, rows) if rows else None
    results = family_of(objective).align(
        engine,
        dataset,
        objective,
        expression,
        out,
        options.training,
        options.rollout,
        resume=resume,
    )
    if before is not None:
        policy.model.eval()
        after = task.decode(engine, rows)
        table = before_after(dataset, rows, before, after, seed=options.training.seed, reward=expression)
        _show(table, options, len(rows))
        results = {**results, "report": table.as_dict()}
    if console.speaks():
        policy.save(out / MODEL_FOLDER)
    return results


def _reported(policy: Policy, rows: Sequence[Row]) -> list[Row]:
    """Take the test rows that the report compares on: all of them, fewer where the model is dear to run."""
    count = affordable(policy, len(rows))
    if count < len(rows):
        console.say(
            f"The report compares {count} of {len(rows)} test rows, because the model is dear to run on this "
            f"{policy.device.type}; recalign decode answers all."
        )
    return evenly_spaced(rows, count)


def _show(table: BeforeAfter, options: AlignOptions, rows: int) -> None:
    if console.speaks():
        title = f"{options.objective}, reward {options.reward}: {rows} test rows"
        console.show(table.render(title, before=Path(options.model).name, after="aligned"))


def _reward(text: str, dataset: PreparedDataset, objective: Objective) -> MetricExpression:
    """Parse and bind the reward, and refuse one that does not fit the lists that it will see."""
    expression = parse_expression(text).bind(dataset.catalogue)
    family_of(objective).check_reward(objective, expression, dataset)
    for harm in expression.harms:
        console.warn(f"{harm} counts for a list here, although lower values are better; did you mean -{harm}?")
    return expression
