"""Options that several commands share, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from recalign.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from recalign.api import Row
    from recalign.models.hardware import Hardware
    from recalign.models.lora import LoraOptions
    from recalign.variations import Varied

DataOption = Annotated[
    Path | None,
    typer.Option(
        help="Prepared dataset (default: the workspace's `data`, which sft and align make of made-up data if need be)."
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        help="A run folder of sft or align, a Hugging Face folder or hub name, a .gguf file, builtin:smollm2, or "
        "builtin:tiny (default: of sft builtin:tiny, of align the workspace's `sft`, of decode and recommend the "
        "newest model)."
    ),
]
OutOption = Annotated[
    Path | None, typer.Option(help="Output folder (default: in the workspace, RECALIGN_HOME or runs/).")
]
SeedOption = Annotated[int, typer.Option(help="Seed of every random stream.", min=0, max=2**32 - 1)]
ParamOption = Annotated[
    list[str] | None,
    typer.Option(
        "-p",
        "--param",
        help="Plugin parameter key=value; `recalign plugins show NAME` lists them.",
        metavar="KEY=VALUE",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, all else on stderr.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="No progress bars and no summaries.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run in the output folder.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Delete what the output folder holds.")]

# ------------------------------------------------------------ models

DtypeOption = Annotated[
    Literal["auto", "float32", "bfloat16"],
    typer.Option(help="Number format of the weights; auto: bfloat16 where the hardware has it."),
]
DeviceOption = Annotated[
    Literal["auto", "cpu", "cuda", "mps"],
    typer.Option(help="Where the model computes; auto: on a GPU where there is one. CUDA_VISIBLE_DEVICES says which."),
]
AttentionOption = Annotated[
    str | None,
    typer.Option(
        help="Attention of transformers for passes that share no prompts: sdpa, eager, flash_attention_2 and others "
        "(default: the model's).",
    ),
]
LoadIn4bitOption = Annotated[
    bool,
    typer.Option(
        "--load-in-4bit", help="Freeze the weights in 4 bits (QLoRA's NF4); needs bitsandbytes, and --lora to train."
    ),
]
LoadIn8bitOption = Annotated[
    bool,
    typer.Option("--load-in-8bit", help="Freeze the weights in 8 bits; needs bitsandbytes, and --lora to train."),
]
TrustOption = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")]

# ------------------------------------------------------------ training

ModuleLearningRateOption = Annotated[
    float | None,
    typer.Option(
        help="Peak learning rate of modules beside the model, such as a head (default: as the model's).", min=0
    ),
]
ScheduleOption = Annotated[
    Literal["linear", "cosine", "constant"], typer.Option(help="Course of the learning rate after the warm-up.")
]
WarmupOption = Annotated[
    float, typer.Option(help="Share of updates in which the learning rate rises.", min=0, max=0.99)
]
PatienceOption = Annotated[
    int, typer.Option(help="Number of validations without a better one after which training stops; 0: never.", min=0)
]
RowsOption = Annotated[
    int | None, typer.Option(help="Maximum number of training rows, drawn by seed (default: all).", min=1)
]
ValidRowsOption = Annotated[
    int | None,
    typer.Option(
        help="Maximum number of validation rows (default: 512; of a model that is dear to run fewer, down to 32).",
        min=1,
    ),
]
TokenBudgetOption = Annotated[
    int,
    typer.Option(help="Maximum number of prompt and list tokens per backward pass, padding included.", min=1),
]
OptimOption = Annotated[
    str, typer.Option(help="Optimizer, by transformers' name: adamw_torch_fused, adafactor, paged_adamw_8bit, ...")
]
GradientCheckpointingOption = Annotated[
    bool,
    typer.Option(
        "--gradient-checkpointing",
        help="Compute layers again in the backward pass instead of keeping what they computed: less memory, more time.",
    ),
]
MaxLengthOption = Annotated[
    int | None,
    typer.Option(
        help="Maximum number of tokens of prompt and response; histories lose their oldest items (default: as "
        "trained, or the model's context).",
        min=1,
    ),
]
TemplateOption = Annotated[
    str | None,
    typer.Option(
        help="Prompt template: compact, alpaca, chat or a Jinja file (default: as the model was trained, or what suits "
        "the tokenizer)."
    ),
]
TemplateVarOption = Annotated[
    list[str] | None,
    typer.Option(
        "--template-var",
        help="Variable of the template or of the model's chat template, such as enable_thinking=false: true, false, a "
        "number or text; may be repeated. A trained model keeps it.",
        metavar="NAME=VALUE",
    ),
]
LoraOption = Annotated[bool, typer.Option("--lora", help="Train a low-rank adapter instead of the weights.")]
LoraRankOption = Annotated[int | None, typer.Option(help="Rank of the adapter, with --lora (16).", min=1)]
LoraAlphaOption = Annotated[
    float | None, typer.Option(help="Alpha of the adapter, whose scale is alpha / rank, with --lora (32).", min=0)
]
LoraTargetOption = Annotated[
    str | None, typer.Option(help="Layers to adapt, separated by commas, with --lora (all-linear).")
]
KeepCheckpointsOption = Annotated[int, typer.Option(help="Number of checkpoints to keep besides the best one.", min=1)]
ReportToOption = Annotated[
    str, typer.Option(help="Trackers, such as tensorboard, wandb, mlflow or trackio, separated by commas.")
]

NumProcessesOption = Annotated[int, typer.Option(help="Number of processes to start on this machine.", min=1)]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        help="Number of threads on the CPU (default: OMP_NUM_THREADS, or the cores that are free; 1 for small models).",
        min=1,
    ),
]

# ------------------------------------------------------------ recommending

SplitOption = Annotated[Literal["test", "valid"], typer.Option(help="Split whose rows are answered.")]
SizeOption = Annotated[
    int | None, typer.Option(help="Items per list (default: the dataset's list length; 10 on next).", min=1)
]
ExcludeHistoryOption = Annotated[
    Literal["auto", "yes", "no"],
    typer.Option(help="Never recommend items that the user had before; auto: as the dataset was prepared."),
]
AnalysesOption = Annotated[
    str | None,
    typer.Option(
        help="Parts of the rows that are looked at by themselves, separated by commas: cold-quartiles, cold-groups (0, "
        "1 to 5, more), both by how often training saw the positive, history (by its length), or all. Rows that were "
        "varied (decode --vary) are analysed anyway."
    ),
]
VaryOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Answer the rows again with one thing changed: order=P (P random orders of the history), length=1,5,20 "
        "(the latest items of histories of 20 or more), place=1,10,20 (of the positive among the candidates). "
        "Repeatable; `eval` and `compare` show what it changes.",
        metavar="WHAT=NUMBERS",
    ),
]
VaryRowsOption = Annotated[
    int | None,
    typer.Option(help="Maximum number of rows that --vary answers again, drawn by seed (default: all).", min=1),
]


def varied(
    vary: list[str] | None, limit: int | None, rows: Sequence[Row], seed: int
) -> tuple[dict[str, Any], list[Varied]]:
    """Read --vary and --vary-rows: what they add to the options that a run records, and the varied rows.

    Raises:
        UserError: see `parse_variations` and `vary_rows`; --vary-rows alone.
    """
    from recalign.variations import parse_variations, vary_rows

    if not vary:
        if limit is not None:
            raise UserError("--vary-rows is given without --vary.", "Say what to vary, such as --vary order=10.")
        return {}, []
    variations = parse_variations(vary)
    asked = {variation.name: list(variation.values) for variation in variations}
    return {"vary": asked, "vary_rows": limit}, vary_rows(variations, rows, limit, seed)


def adapter(lora: bool, rank: int | None, alpha: float | None, target: str | None) -> LoraOptions | None:
    """Read --lora and what belongs to it.

    Raises:
        UserError: something is said of an adapter, and none is asked for.
    """
    given = {"rank": rank, "alpha": alpha, "target": tuple(target.split(",")) if target else None}
    stated: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if not lora and stated:
        raise UserError(f"--lora-{next(iter(stated))} is given without --lora.", "Add --lora.")
    if not lora:
        return None
    from recalign.models.lora import LoraOptions

    return LoraOptions(**stated)


def hardware(
    device: str,
    attn_implementation: str | None,
    load_in_4bit: bool,
    load_in_8bit: bool,
    threads: int | None,
) -> Hardware:
    """Read --device, --attn-implementation, --load-in-4bit and --load-in-8bit, and note --threads.

    Raises:
        UserError: weights in 4 and in 8 bits.
    """
    from recalign.models.hardware import Hardware
    from recalign.threads import ask

    ask(threads)
    if load_in_4bit and load_in_8bit:
        raise UserError("--load-in-4bit and --load-in-8bit are given together.", "Leave one of them out.")
    bits: Any = "4bit" if load_in_4bit else "8bit" if load_in_8bit else None
    return Hardware(device, attn_implementation, bits)  # type: ignore[arg-type]


def rate(learning_rate: float | None, option: str = "--learning-rate") -> float:
    """Read a learning rate; 0 stands for the default.

    Raises:
        UserError: it is 0, with which nothing is learnt.
    """
    if learning_rate == 0:
        raise UserError(f"With {option} 0 nothing is learnt.", "Leave it out for the default.")
    return learning_rate or 0.0


def passes(epochs: float | None, steps: int) -> float:
    """Read --epochs; 0 stands for the default, or for a number of updates in their place.

    Raises:
        UserError: no epoch and no update.
    """
    if epochs == 0 and not steps:
        raise UserError("--epochs 0 trains nothing.", "Leave it out for the default.")
    return epochs or 0.0


def loggers(report_to: str) -> tuple[str, ...]:
    """Read --report-to."""
    return () if report_to == "none" else tuple(report_to.split(","))
