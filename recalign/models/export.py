"""Exports: a trained model as a Hugging Face folder that needs no recalign."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from recalign.errors import UserError
from recalign.models.builtin import is_from_scratch
from recalign.models.gguf import PACKAGED
from recalign.models.item_embeddings import attach_backbone, write_into_weights
from recalign.models.modules import MODULES_FILE
from recalign.models.settings import SETTINGS_FILE, recorded_settings
from recalign.models.weights import (
    find_model,
    load_model,
    load_tokenizer,
    model_hash,
    quieten_libraries,
    save_weights,
)
from recalign.runs.lifecycle import Asked, perform_whole
from recalign.workspace import RunFolder, write_json


def export_model(name: str, out: Path, *, trust_remote_code: bool = False, overwrite: bool = False) -> dict[str, Any]:
    """Write a Hugging Face folder, an adapter merged, that `AutoModelForCausalLM.from_pretrained` loads by itself.

    Args:
        name: a run folder, Hugging Face folder or hub name.
        out: folder to write.
        trust_remote_code: run code that comes with the model.
        overwrite: replace the export that `out` holds.

    Returns:
        How many parameters the model has, and whether the same export was there already (`reused`).

    Raises:
        UserError: see `RunFolder.plan`; no such model, or a broken one.
    """
    if is_from_scratch(name):
        raise UserError(f"{name} is not trained yet.", "Export the run folder of `recalign sft` or `recalign align`.")
    quieten_libraries()
    folder = find_model(name)
    source = str(name if name in PACKAGED else folder or name)

    def ready() -> tuple[PreTrainedTokenizerBase, PreTrainedModel | PeftModel]:
        tokenizer = load_tokenizer(source, trust_remote_code)
        loaded = load_model(
            source, tokenizer, [], dtype="auto", trust_remote_code=trust_remote_code, lora=None, trainable=False
        )
        return tokenizer, loaded.merge_and_unload() if isinstance(loaded, PeftModel) else loaded

    def work(loaded: tuple[PreTrainedTokenizerBase, PreTrainedModel], temporary: Path) -> dict[str, Any]:
        tokenizer, model = loaded
        recorded = recorded_settings(folder)
        if "backbone" in recorded:
            attach_backbone(model, recorded["backbone"], None, (), seed=0, folder=folder)
            write_into_weights(model)
        save_weights(model, temporary)
        tokenizer.save_pretrained(temporary)
        if folder and (folder / MODULES_FILE).is_file():
            (temporary / MODULES_FILE).write_bytes((folder / MODULES_FILE).read_bytes())
        if recorded:
            write_json(temporary / SETTINGS_FILE, recorded)
        return {"parameters": int(model.num_parameters())}

    asked = Asked("export", {"model": name}, {"model": model_hash(name)})
    results, reused = perform_whole(RunFolder(out), asked, ready, work, overwrite=overwrite)
    return {**results, "reused": reused}
