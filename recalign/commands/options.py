"""Options that several commands share, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DataOption = Annotated[
    Path | None,
    typer.Option(help="Prepared dataset (default: the workspace's `data`, made from the embedded default)."),
]
ModelOption = Annotated[
    str | None, typer.Option(help="A run folder of sft or align, a Hugging Face folder or hub name, or builtin:tiny.")
]
OutOption = Annotated[
    Path | None, typer.Option(help="Output folder (default: in the workspace, RECALIGN_HOME or runs/).")
]
SeedOption = Annotated[int, typer.Option(help="Seed of every random stream.", min=0)]
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
