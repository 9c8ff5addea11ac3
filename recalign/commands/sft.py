"""`recalign sft`: base model to supervised checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from recalign.commands.shared_options import (
    AttentionOption,
    DataOption,
    DeviceOption,
    DtypeOption,
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


def sft(
    *,
    data: DataOption = None,
    model: ModelOption = None,
    objective: Annotated[
        str, typer.Option(help="A token or preference objective: sft, msl, bear, s-dpo, or a plugin's.")
    ] = "sft",
    param: ParamOption = None,
    out: OutOption = None,
    seed: SeedOption = 0,
    epochs: Annotated[float, typer.Option(help="Number of passes over the training rows.", min=0)] = 5.0,
    max_steps: Annotated[int, typer.Option(help="Maximum number of updates; 0 lets --epochs decide.", min=0)] = 0,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Peak learning rate (default: 5e-3 from scratch, 1e-4 for an adapter, else 2e-5).", min=0),
    ] = None,
    module_learning_rate: ModuleLearningRateOption = None,
    batch_size: Annotated[int, typer.Option(help="Rows per forward pass and process.", min=1)] = 32,
    gradient_accumulation: Annotated[int, typer.Option(help="Forward passes per update.", min=1)] = 1,
    rows: RowsOption = None,
    token_budget: TokenBudgetOption = 16384,
    schedule: ScheduleOption = "cosine",
    warmup: WarmupOption = 0.05,
    optim: OptimOption = "adamw_torch_fused",
    gradient_checkpointing: GradientCheckpointingOption = False,
    weight_decay: Annotated[float, typer.Option(help="Weight decay of AdamW.", min=0)] = 0.01,
    loss_on: Annotated[
        Literal["auto", "response", "all"],
        typer.Option(
            help="Tokens that are learnt: of the response, or of all the text (auto: all for models from scratch)."
        ),
    ] = "auto",
    shuffle_targets: Annotated[
        bool,
        typer.Option(
            "--shuffle-targets", help="Shuffle each row's targets every epoch, so that lists are learnt as sets."
        ),
    ] = False,
    history_dropout: Annotated[
        float, typer.Option(help="Share of each history's items that is left out every epoch.", min=0, max=0.9)
    ] = 0.0,
    rationales: Annotated[
        Path | None,
        typer.Option(
            help="File of rationales (`recalign rationales`) to learn, in place of the training rows' answers."
        ),
    ] = None,
    eval_every: Annotated[
        int, typer.Option(help="Number of updates between validations; 0: once per epoch.", min=0)
    ] = 0,
    patience: PatienceOption = 0,
    metric: Annotated[
        str | None, typer.Option(help="Validation metric besides the losses (default: ndcg), or none.")
    ] = None,
    best_on: Annotated[
        Literal["auto", "loss", "cross-entropy", "metric"],
        typer.Option(
            help="What picks the best checkpoint: the objective's own loss on validation rows, the answers' "
            "cross-entropy over the whole vocabulary, or the metric (auto: the loss; for preference objectives the "
            "metric)."
        ),
    ] = "auto",
    valid_rows: ValidRowsOption = None,
    max_length: MaxLengthOption = None,
    template: TemplateOption = None,
    template_var: TemplateVarOption = None,
    lora: LoraOption = False,
    lora_rank: LoraRankOption = None,
    lora_alpha: LoraAlphaOption = None,
    lora_target: LoraTargetOption = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="A backbone, which computes the embeddings of item tokens: item-vectors, or a plugin's; needs "
            "atomic identifiers."
        ),
    ] = None,
    backbone_param: Annotated[
        list[str] | None,
        typer.Option(
            "--backbone-param",
            help="Parameter key=value of the backbone; `recalign plugins show NAME` lists them.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    attn_implementation: AttentionOption = None,
    load_in_4bit: LoadIn4bitOption = False,
    load_in_8bit: LoadIn8bitOption = False,
    trust_remote_code: TrustOption = False,
    log_every: Annotated[int, typer.Option(help="Number of updates between two lines of log.jsonl.", min=1)] = 10,
    num_processes: NumProcessesOption = 1,
    threads: ThreadsOption = None,
    keep_checkpoints: KeepCheckpointsOption = 2,
    report_to: ReportToOption = "none",
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> dict[str, Any]:
    """Teach a language model what users go on to, and keep the checkpoint that is best on validation rows.

    Example: recalign sft --model Qwen/Qwen2.5-0.5B --lora --epochs 3
    """
    from recalign import console, workspace
    from recalign.data.dataset import PreparedDataset
    from recalign.params import parse_assignments
    from recalign.preparation.pipeline import ensure_default_dataset
    from recalign.text.chat_templates import parse_variables
    from recalign.training.processes import relaunch
    from recalign.training.supervised import BUILTIN, SftOptions, train_supervised
    from recalign.training.training_options import TrainingOptions

    dataset = PreparedDataset(data or ensure_default_dataset(seed))
    if num_processes > 1:
        relaunch(num_processes, data=dataset.path, model=model or BUILTIN)
    options = SftOptions(
        model=model or BUILTIN,
        objective=objective,
        params=parse_assignments(param or []),
        training=TrainingOptions(
            seed=seed,
            epochs=passes(epochs, max_steps),
            max_steps=max_steps,
            learning_rate=rate(learning_rate),
            module_learning_rate=rate(module_learning_rate, "--module-learning-rate"),
            batch_size=batch_size,
            gradient_accumulation=gradient_accumulation,
            schedule=schedule,
            warmup=warmup,
            weight_decay=weight_decay,
            eval_every=eval_every,
            patience=patience,
            best_metric=best_on.replace("-", "_"),
            log_every=log_every,
            keep_checkpoints=keep_checkpoints,
            report_to=loggers(report_to),
            token_budget=token_budget,
            optim=optim,
            gradient_checkpointing=gradient_checkpointing,
        ),
        loss_on=loss_on,
        template=template,
        template_vars=parse_variables(template_var or []),
        lora=adapter(lora, lora_rank, lora_alpha, lora_target),
        backbone=backbone,
        backbone_params=parse_assignments(backbone_param or []),
        hardware=hardware(device, attn_implementation, load_in_4bit, load_in_8bit, threads),
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        max_length=max_length,
        shuffle_targets=shuffle_targets,
        history_dropout=history_dropout,
        rationales=None if rationales is None else str(rationales),
        metric="" if metric == "none" else metric,
        rows=rows,
        valid_rows=valid_rows,
    )
    folder = out or workspace.home() / "sft"
    results = train_supervised(dataset, folder, options, resume=resume, overwrite=overwrite)
    best = results["best_on"]
    console.say(
        f"{folder}: {results['updates']} updates, best validation {best.replace('_', '-')} "
        f"{results[f'best_{best}']:.4g} "
        f"at update {results['best_update']}."
    )
    return {"out": str(folder), **results}
