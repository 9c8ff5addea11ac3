"""`recalign align`: supervised checkpoint to aligned checkpoint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from recalign.commands.shared_options import (
    AttentionOption,
    DataOption,
    DeviceOption,
    DtypeOption,
    ExcludeHistoryOption,
    GradientCheckpointingOption,
    JsonOption,
    KeepCheckpointsOption,
    LoadIn4bitOption,
    LoadIn8bitOption,
    LoraAlphaOption,
    LoraOption,
    LoraRankOption,
    LoraTargetOption,
    MaxLengthOption,
    ModelOption,
    ModuleLearningRateOption,
    NumProcessesOption,
    OptimOption,
    OutOption,
    OverwriteOption,
    ParamOption,
    PatienceOption,
    QuietOption,
    ReportToOption,
    ResumeOption,
    RowsOption,
    ScheduleOption,
    SeedOption,
    TemplateOption,
    TemplateVarOption,
    ThreadsOption,
    TokenBudgetOption,
    TrustOption,
    ValidRowsOption,
    WarmupOption,
    adapter,
    hardware,
    loggers,
    passes,
    rate,
)


def align(
    *,
    objective: Annotated[
        str, typer.Option(help="Objective, such as blade, grpo, rere, sprec, bear or s-dpo; see recalign plugins list.")
    ] = "blade",
    reward: Annotated[
        str, typer.Option(help='Reward: a weighted sum of metrics, such as "ndcg@5 - 0.5*mgu".')
    ] = "ndcg",
    data: DataOption = None,
    model: ModelOption = None,
    param: ParamOption = None,
    out: OutOption = None,
    seed: SeedOption = 0,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Learning rate (default: 1e-3 from scratch, 5e-5 for an adapter, else 5e-6, the paper's).", min=0
        ),
    ] = None,
    module_learning_rate: ModuleLearningRateOption = None,
    max_steps: Annotated[
        int,
        typer.Option(help="Number of updates; 0 lets --epochs decide (120 from scratch without it).", min=0),
    ] = 0,
    epochs: Annotated[
        float | None, typer.Option(help="Number of passes over the prompts (3, the paper's).", min=0)
    ] = None,
    prompts_per_step: Annotated[int, typer.Option(help="Prompts per update, over all processes.", min=1)] = 16,
    rows: RowsOption = None,
    updates_per_rollout: Annotated[int, typer.Option(help="Number of updates on the same completions.", min=1)] = 1,
    schedule: ScheduleOption = "linear",
    warmup: WarmupOption = 0.0,
    max_grad_norm: Annotated[
        float, typer.Option(help="Maximum norm of the gradients, which are scaled down to it.", min=0)
    ] = 1.0,
    eval_every: Annotated[
        int, typer.Option(help="Number of updates between validations; 0: once per epoch.", min=0)
    ] = 10,
    patience: PatienceOption = 0,
    valid_rows: ValidRowsOption = None,
    token_budget: TokenBudgetOption = 16384,
    optim: OptimOption = "adamw_torch_fused",
    gradient_checkpointing: GradientCheckpointingOption = False,
    exclude_history: ExcludeHistoryOption = "auto",
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Compare with the starting model on the test split.")
    ] = True,
    max_length: MaxLengthOption = None,
    template: TemplateOption = None,
    template_var: TemplateVarOption = None,
    lora: LoraOption = False,
    lora_rank: LoraRankOption = None,
    lora_alpha: LoraAlphaOption = None,
    lora_target: LoraTargetOption = None,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    attn_implementation: AttentionOption = None,
    load_in_4bit: LoadIn4bitOption = False,
    load_in_8bit: LoadIn8bitOption = False,
    trust_remote_code: TrustOption = False,
    num_processes: NumProcessesOption = 1,
    threads: ThreadsOption = None,
    keep_checkpoints: KeepCheckpointsOption = 2,
    report_to: ReportToOption = "none",
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> dict[str, Any]:
    """Align a model to a list-level reward, and compare it with the model that it started from.

    Without --data and --model it makes the embedded dataset and trains a tiny model first.

    Example: recalign align --objective blade --reward "ndcg@5 - 0.5*mgu" -p tau=0.3
    """
    from recalign import console, workspace
    from recalign.data.dataset import PreparedDataset
    from recalign.metrics.expression import parse_expression
    from recalign.params import parse_assignments
    from recalign.plugins.registry import create
    from recalign.preparation.pipeline import ensure_default_dataset
    from recalign.text.chat_templates import parse_variables
    from recalign.training.alignment import AlignOptions, train_aligned
    from recalign.training.online.rollout_training import RolloutOptions
    from recalign.training.processes import relaunch
    from recalign.training.supervised import ensure_default_model
    from recalign.training.training_options import TrainingOptions

    params = parse_assignments(param or [])
    create("objective", objective, params)  # a misspelt name must not cost a training run first
    parse_expression(reward)
    training = TrainingOptions(
        seed=seed,
        epochs=passes(epochs, max_steps),
        max_steps=max_steps,
        learning_rate=rate(learning_rate),
        module_learning_rate=rate(module_learning_rate, "--module-learning-rate"),
        schedule=schedule,
        warmup=warmup,
        weight_decay=0.0,
        max_grad_norm=max_grad_norm,
        eval_every=eval_every,
        patience=patience,
        keep_checkpoints=keep_checkpoints,
        report_to=loggers(report_to),
        optim=optim,
        gradient_checkpointing=gradient_checkpointing,
    )
    layers = adapter(lora, lora_rank, lora_alpha, lora_target)
    dataset = PreparedDataset(data or ensure_default_dataset(seed))
    start = model or str(ensure_default_model(dataset, seed))
    folder = out or workspace.home() / f"align-{objective}-{slug(reward)}"
    if num_processes > 1:
        relaunch(num_processes, data=dataset.path, model=start)
    options = AlignOptions(
        model=start,
        objective=objective,
        reward=reward,
        params=params,
        training=training,
        rollout=RolloutOptions(prompts_per_step, rows, valid_rows, updates_per_rollout, token_budget),
        exclude_history=exclude_history,
        template=template,
        template_vars=parse_variables(template_var or []),
        lora=layers,
        hardware=hardware(device, attn_implementation, load_in_4bit, load_in_8bit, threads),
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        max_length=max_length,
        report=report,
    )
    results = train_aligned(dataset, Path(folder), options, resume=resume, overwrite=overwrite)
    console.say(
        f"{folder}: validation {reward} {results['start_reward']:.4f} -> {results['best_reward']:.4f} "
        f"at update {results['best_update']} of {results['updates']}."
    )
    return {"out": str(folder), **results}


def slug(reward: str) -> str:
    """Write a reward as part of a folder's name: `ndcg@5 - 0.5*mgu` becomes `ndcg5-0.5mgu`."""
    return re.sub(r"[^A-Za-z0-9_.+-]", "", reward.replace("(", "-").replace("=", ""))
