"""Alignment: a starting policy, an objective and a reward in, a better policy and a report of how it went out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from recalign import console, registry
from recalign.api import Objective, Predictions, PreferenceObjective, RolloutObjective, Row, UserError
from recalign.data.chat import Scalar
from recalign.data.dataset import PreparedDataset
from recalign.evaluation.expression import RewardExpression, check_cutoffs, parse_reward
from recalign.evaluation.tables import BeforeAfter, before_after
from recalign.generation.engine import Engine
from recalign.training.data_training import align_on_data
from recalign.training.lessons import check_objective
from recalign.training.lora import LoraOptions
from recalign.training.models import SETTINGS_FILE, Policy, is_builtin, load_policy
from recalign.training.options import TrainingOptions
from recalign.training.processes import connect, process
from recalign.training.rollout_training import RolloutOptions, align_policy
from recalign.training.sft import MAKES, MODEL_FOLDER
from recalign.training.validation import BEAM_WIDTH
from recalign.training.weights import Dtype, find_model_folder, model_hash
from recalign.workspace import RunFolder, read_json

FROM_SCRATCH = {"learning_rate": 1e-3, "max_steps": 120, "reference_lists": 32}
"""From random weights: the model is small and takes large steps (measured on the embedded dataset)."""
PRETRAINED = {"learning_rate": 5e-6, "max_steps": 0}
"""BLADE's: learning rate 5e-6, by epochs (3). Adapters start from zero and take ten times the rate."""


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
    exclude_history: Literal["auto", "yes", "no"] = "auto"
    template: str | None = None
    template_vars: Mapping[str, Scalar] = field(default_factory=dict)
    lora: LoraOptions | None = None
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
    rate = defaults["learning_rate"] * (10 if options.lora is not None else 1)
    training = replace(options.training, learning_rate=options.training.learning_rate or rate)
    objective = registry.create("objective", options.objective, options.params)
    if isinstance(objective, PreferenceObjective) and objective.rounds is not None:
        if training.max_steps:
            raise UserError(
                f"The objective '{options.objective}' trains in rounds, not for a number of updates.",
                "Leave --steps out; set -p rounds=... and -p round_rows=...",
            )
        training = replace(training, epochs=training.epochs or 1.0)
    elif not training.max_steps and not training.epochs:
        training = replace(training, max_steps=defaults["max_steps"], epochs=3.0)
    params = dict(options.params)
    if scratch and "reference_lists" in objective.Params.model_fields:
        params.setdefault("reference_lists", FROM_SCRATCH["reference_lists"])
    return replace(options, training=training, params=params)


def _starts_from_scratch(model: str) -> bool:
    """Tell whether a model's weights started from random numbers, without loading it."""
    folder = None if is_builtin(model) else find_model_folder(model)
    if folder is None or not (folder / SETTINGS_FILE).is_file():
        return is_builtin(model)
    return is_builtin(str(read_json(folder / SETTINGS_FILE).get("base_model")))


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
        UserError: see `RunFolder.begin`, `load_policy`, `align_policy`, `align_on_data`; an objective for another task;
            `@k` beyond the lists.
        KeyboardInterrupt: interrupted; resumable.
    """
    options = with_defaults(options)
    objective = registry.create("objective", options.objective, options.params)
    check_objective(objective, dataset, options.model)
    expression = _reward(options.reward, dataset, objective)
    run = RunFolder(out)
    if run.done and not overwrite:
        _claim(run, dataset, options)
        console.say(f"{out} is done already.")
        return dict(run.record["results"])
    connect()
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
    _claim(run, dataset, options, resume=resume, overwrite=overwrite)  # what is wrong with the input has shown by now
    try:
        results = _aligned(policy, dataset, objective, expression, out, options, resume)
    except KeyboardInterrupt:
        if process()[0] == 0:
            run.interrupt()
        raise
    if process()[0] == 0:
        policy.save(out / MODEL_FOLDER)
        run.finish(results)
    return results


def decode_lists(engine: Engine, rows: Sequence[Row]) -> Predictions:
    """Decode one list a row: greedily (list task), or by a beam of 10 (next task)."""
    prompter = engine.policy.prompter
    if prompter.task == "next":
        width = min(BEAM_WIDTH, *(len(engine.catalogue) - len(engine.excluded(row)) for row in rows))
        items, scores = (part.numpy() for part in engine.beam(rows, width=width, size=width))
    else:
        lists = engine.greedy(rows, list_length=prompter.list_length)
        items = lists.items.numpy()
        scores = np.repeat(lists.logps.sum(dim=1, keepdim=True).numpy(), items.shape[1], axis=1)
    return Predictions(items, scores.astype(np.float64), (items >= 0).cumprod(axis=1).sum(axis=1))


def _aligned(
    policy: Policy,
    dataset: PreparedDataset,
    objective: Objective,
    expression: RewardExpression,
    out: Path,
    options: AlignOptions,
    resume: bool,
) -> dict[str, Any]:
    """Align, between two looks at the test split."""
    exclude = dataset.excludes_history if options.exclude_history == "auto" else options.exclude_history == "yes"
    engine = Engine(policy, dataset.catalogue, exclude_history=exclude, token_budget=2 * options.rollout.token_budget)
    rows = list(dataset.rows("test")) if options.report else []
    before = decode_lists(engine, rows) if rows else None
    learn: Any = align_policy if isinstance(objective, RolloutObjective) else align_on_data
    results = learn(
        engine,
        dataset,
        objective,
        expression,
        out,
        options.training,
        options.rollout,
        resume=resume,
    )
    if before is None:
        return results
    policy.model.eval()
    table = before_after(dataset, rows, before, decode_lists(engine, rows), seed=options.training.seed)
    _show(table, options, len(rows))
    return {**results, "report": table.as_dict()}


def _show(table: BeforeAfter, options: AlignOptions, rows: int) -> None:
    if process()[0] == 0:
        title = f"{options.objective}, reward {options.reward}: {rows} test rows"
        console.show(table.render(title, before=Path(options.model).name, after="aligned"))


def _reward(text: str, dataset: PreparedDataset, objective: Objective) -> RewardExpression:
    """Parse and bind the reward, and refuse one that does not fit the lists that it will see."""
    expression = parse_reward(text).bind(dataset.catalogue)
    rollouts = isinstance(objective, RolloutObjective)
    decoded = BEAM_WIDTH if dataset.task == "next" else dataset.list_length
    check_cutoffs(expression, dataset.list_length if rollouts else decoded)
    if "ranks" in expression.reads and isinstance(objective, RolloutObjective) and objective.rollouts == "sample":
        raise UserError(
            f"The reward {expression.text} compares the ranked titles of a beam search; {objective.name} samples.",
            "Use --objective rere, or a reward such as ndcg.",
        )
    for harm in expression.harms:
        console.warn(f"{harm} counts for a list here, although lower values are better; did you mean -{harm}?")
    return expression


def _claim(
    run: RunFolder, dataset: PreparedDataset, options: AlignOptions, *, resume: bool = False, overwrite: bool = False
) -> None:
    """Begin the run; one process speaks for all."""
    if process()[0] == 0:
        inputs = {"data": dataset.hash, "model": model_hash(options.model)}
        run.begin("align", asdict(options), inputs, resume=resume, overwrite=overwrite, makes=MAKES)
