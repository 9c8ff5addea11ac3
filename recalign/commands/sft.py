"""`recalign sft`: base model to supervised checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from recalign.commands.shared_options import (
    DataOption,
    DtypeOption,
    JsonOption,
    KeepCheckpointsOption,
    LoraAlphaOption,
    LoraOption,
    LoraRankOption,
    LoraTargetOption,
    MaxLengthOption,
    ModelOption,
    ModuleLearningRateOption,
    OutOption,
    OverwriteOption,
    ParamOption,
    PatienceOption,
    QuietOption,
    ReportToOption,
    ResumeOption,
    ScheduleOption,
    SeedOption,
    TemplateOption,
    TemplateVarOption,
    TrustOption,
    ValidRowsOption,
    WarmupOption,
    adapter,
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
        typer.Option(help="Peak learning rate (default: 5e-3 from scratch, 1e-4 with LoRA, else 2e-5).", min=0),
    ] = None,
    module_learning_rate: ModuleLearningRateOption = None,
    batch_size: Annotated[int, typer.Option(help="Rows per forward pass and process.", min=1)] = 32,
    gradient_accumulation: Annotated[int, typer.Option(help="Forward passes per update.", min=1)] = 1,
    schedule: ScheduleOption = "cosine",
    warmup: WarmupOption = 0.05,
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
    valid_rows: ValidRowsOption = 512,
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
    trust_remote_code: TrustOption = False,
    log_every: Annotated[int, typer.Option(help="Number of updates between two lines of log.jsonl.", min=1)] = 10,
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
    from recalign.training.supervised import BUILTIN, SftOptions, train_supervised
    from recalign.training.training_options import TrainingOptions

    dataset = PreparedDataset(data or ensure_default_dataset(seed))
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
        ),
        loss_on=loss_on,
        template=template,
        template_vars=parse_variables(template_var or []),
        lora=adapter(lora, lora_rank, lora_alpha, lora_target),
        backbone=backbone,
        backbone_params=parse_assignments(backbone_param or []),
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        max_length=max_length,
        shuffle_targets=shuffle_targets,
        history_dropout=history_dropout,
        rationales=None if rationales is None else str(rationales),
        metric="" if metric == "none" else metric,
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
