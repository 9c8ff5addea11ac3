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
    from recalign.models.export import export_model

    exported = export_model(model, out, trust_remote_code=trust_remote_code, overwrite=overwrite)
    if exported["reused"]:
        console.say(f"{out} holds this model already; nothing to do (--overwrite exports it again).")
    else:
        console.say(f"{out}: {exported['parameters']:,} parameters, adapter merged where there was one.")
    return {"out": str(out), **exported}
