"""`recalign export`: a trained model as a plain Hugging Face folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from recalign.commands.shared_options import (
    JsonOption,
    OverwriteOption,
    QuietOption,
    TrustOption,
)

MODEL_FILE = "config.json"
"""What every exported folder holds, and no run folder does."""


def export(
    *,
    model: Annotated[str, typer.Option(help="A run folder of sft or align, or a Hugging Face folder or hub name.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    trust_remote_code: TrustOption = False,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> dict[str, Any]:
    """Merge a model's adapter and write a folder that AutoModelForCausalLM.from_pretrained loads by itself.

    Example: recalign export --model runs/align-blade-ndcg --out exported
    """
    from recalign import console
    from recalign.errors import UserError
    from recalign.models.policy import export_model
    from recalign.models.weights import find_model_folder

    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        if not (out / MODEL_FILE).is_file():
            raise UserError(f"{out} exists, and is no exported model.", "Choose another --out.")
        if not overwrite:
            raise UserError(f"{out} exists.", "Choose another --out, or pass --overwrite.")
        if find_model_folder(model) == out.resolve():
            raise UserError(f"{out} is the model itself.", "Choose another --out.")
    parameters = export_model(model, out, trust_remote_code=trust_remote_code)
    console.say(f"{out}: {parameters:,} parameters, adapter merged where there was one.")
    return {"out": str(out), "parameters": parameters}
