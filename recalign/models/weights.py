"""Reading and writing models on disk: finding a folder, tokenizer, weights, adapter; every failure told apart."""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch
from peft import PeftModel, load_peft_weights, set_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from recalign.errors import UserError
from recalign.models.builtin import PREFIX, parse_builtin
from recalign.models.lora import LoraOptions, attach_adapter, load_adapter
from recalign.models.modules import attached, language_model_state, restore_modules, save_modules
from recalign.reading import read_object, reading
from recalign.workspace import RUN_FILE, RunFolder

Dtype = Literal["auto", "float32", "bfloat16"]
ENDS = 1 << 20
SMALL = 2_000_000
ADAPTER_FILE = "adapter_model.safetensors"
FREE_JSON = ("trainer_state.json",)
"""JSON files beside a model that no loading of it reads."""


def save_weights(model: PreTrainedModel | PeftModel, folder: Path | str) -> None:
    """Write weights as safetensors, or the trained adapter alone, and those of the modules beside the model.

    Raises:
        OSError: the disk is full.
    """
    # The rows of added tokens are part of an adapter; the base's embeddings need no copy.
    adapter = {"selected_adapters": ["default"], "save_embedding_layers": False}
    whole = {"state_dict": language_model_state(model)} if attached(model) else {}
    try:
        model.save_pretrained(str(folder), **(adapter if isinstance(model, PeftModel) else whole))
        save_modules(model, Path(folder))
    except SafetensorError as error:
        raise OSError(str(error)) from error


def restore_weights(model: PreTrainedModel | PeftModel, folder: Path) -> None:
    """Put what `save_weights` wrote back into the model that it was written from.

    Raises:
        UserError: the files are broken.
    """
    with _loading(str(folder), "model"):
        if isinstance(model, PeftModel):
            set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"))
        else:
            stored = type(model).from_pretrained(str(folder), dtype=model.dtype).state_dict()
            model.load_state_dict(stored, strict=not attached(model))
    restore_modules(model, folder)


def find_model_folder(name: str | Path) -> Path | None:
    """Return the Hugging Face folder that a run folder or path names, or None for a hub name.

    Raises:
        UserError: the path exists but holds no model.
    """
    path = Path(name)
    if not path.exists():
        owned = str(name).count("/") == 1 and not path.is_absolute() and not path.parent.is_dir()  # owner/name
        if not owned and str(name) != path.name:  # nor a name alone, such as gpt2
            raise UserError(
                f"{name} does not exist.", "Name a run folder, a Hugging Face folder or hub name, or builtin:tiny."
            )
        return None
    for folder in (path / "model", path):
        if (folder / "config.json").is_file() or (folder / "adapter_config.json").is_file():
            return folder.resolve()
    record = RunFolder(path).record
    unfinished = record and record.get("status") != "done"
    raise UserError(
        f"{path} holds no model (no config.json or adapter_config.json, nor a folder `model` with one).",
        f"Its `recalign {record['command']}` is unfinished: go on with --resume."
        if unfinished
        else "Name a run folder of sft or align, a Hugging Face folder or hub name, or builtin:tiny.",
    )


def model_hash(name: str) -> str:
    """Return what tells one model from another without loading it: its name, or its files' sizes, ends and settings."""
    folder = None if name.startswith(PREFIX) else find_model_folder(name)
    if folder is None:
        return name
    digest = hashlib.sha256()
    for file in sorted([*folder.glob("*.safetensors"), *(set(folder.glob("*.json")) - {folder / RUN_FILE})]):
        digest.update(f"{file.name} {file.stat().st_size}".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(ENDS))
            stream.seek(max(0, file.stat().st_size - ENDS))
            digest.update(stream.read(ENDS))
    return digest.hexdigest()[:16]


def resolve_dtype(dtype: Dtype, *, full_training: bool) -> torch.dtype:
    """Return the weights' type; full fine-tuning keeps float32 weights (and computes in bfloat16 under autocast)."""
    if dtype == "auto":
        has_bfloat16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if has_bfloat16 and not full_training else torch.float32
    return torch.float32 if dtype == "float32" else torch.bfloat16


def default_device() -> torch.device:
    """Return this process's GPU, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def limit_threads(model: PreTrainedModel | PeftModel) -> None:
    """Let a small model on the CPU compute in one thread, unless OMP_NUM_THREADS says otherwise.

    Its matrices are too small to share out: at a width of 64, two threads on busy cores waited for each other at every
    operation and took 7 to 16 times as long as one.
    """
    if default_device().type == "cpu" and "OMP_NUM_THREADS" not in os.environ and model.num_parameters() < SMALL:
        torch.set_num_threads(1)


def quieten_libraries() -> None:
    """Turn off progress bars and remarks of transformers: what matters reaches the user through our own errors.

    Warnings of what a later version will rename concern those who call it, peft for one, and nobody else.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.")
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()


def load_tokenizer(source: str, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a folder or hub name.

    Raises:
        UserError: there is none, or it is broken.
    """
    files = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "spiece.model")
    if Path(source).is_dir() and not any((Path(source) / file).is_file() for file in files):
        raise UserError(
            f"{source} has no tokenizer.", "Copy the tokenizer's files (tokenizer.json ...) into the folder."
        )
    check_files(Path(source))
    with _loading(source, "tokenizer"):
        return AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)


def load_model(
    source: str,
    tokenizer: PreTrainedTokenizerBase,
    new_tokens: Sequence[int],
    *,
    dtype: torch.dtype | Literal["auto"],
    trust_remote_code: bool,
    lora: LoraOptions | None,
    trainable: bool,
) -> PreTrainedModel | PeftModel:
    """Load weights, or an adapter on its base; make room for added tokens; attach an adapter where one is wanted.

    Args:
        source: a folder or hub name.
        tokenizer: its tokenizer, to which tokens may have been added.
        new_tokens: ids of the tokens that were added.
        dtype: of the weights; `auto`: as they were saved.
        trust_remote_code: run code that comes with the model.
        lora: attach such an adapter.
        trainable: whether a saved adapter will be trained further.

    Raises:
        UserError: no such model, or a broken, half-written or unsuitable one.
    """
    adapter = Path(source) / "adapter_config.json"
    if not adapter.is_file():
        model = _load_weights(source, dtype, trust_remote_code)
        _grow_embeddings(model, tokenizer, new_tokens)
        return model if lora is None else attach_adapter(model, lora, new_tokens)
    if lora is not None:
        raise UserError(
            f"{source} has an adapter already, which would be trained further.",
            "Leave --lora out, or merge it first: recalign export --model MODEL --out FOLDER.",
        )
    check_files(Path(source))
    if not (Path(source) / ADAPTER_FILE).is_file():
        raise UserError(
            f"{source} has no {ADAPTER_FILE}; pickled weights, such as adapter_model.bin, can run code and are not "
            "read.",
            "Save the adapter again as safetensors.",
        )
    base = read_object(adapter).get("base_model_name_or_path")
    if not isinstance(base, str):
        raise UserError(f"{adapter}: base_model_name_or_path is {base!r}, no model.", "Mend the file.")
    find_model_folder(base)
    model = _load_weights(base, dtype, trust_remote_code)
    _grow_embeddings(model, tokenizer, [])
    with _loading(source, "adapter"):
        return load_adapter(model, Path(source), trainable=trainable)


def check_files(folder: Path) -> None:
    """Refuse a model's folder whose files are not what their names say, before a library stumbles over them.

    Args:
        folder: a Hugging Face folder; of a hub name, which is no folder, nothing is checked.

    Raises:
        UserError: a JSON file is none, holds no object or is nested too deeply; a file of weights is empty or cut off.
    """
    hint = "Copy the file again, or train the model again."
    for file in sorted(folder.glob("*.json")):
        if file.name not in FREE_JSON:
            read_object(file, hint, finite=False)
    for file in sorted(folder.glob("*.safetensors")):
        with reading(file, hint, "holds no whole weights"), safe_open(file, framework="pt") as opened:
            opened.keys()


def check_model(name: str, trust_remote_code: bool = False) -> None:
    """Refuse a model that is not there, by its configuration alone: nothing large is read.

    Args:
        name: a run folder, a Hugging Face folder or hub name, or a built-in model.
        trust_remote_code: run code that comes with the model.

    Raises:
        UserError: no such model, or a broken configuration.
    """
    if name.startswith(PREFIX):
        parse_builtin(name)
        return
    source = str(find_model_folder(name) or name)
    check_files(Path(source))
    if not (Path(source) / "adapter_config.json").is_file():
        with _loading(source, "configuration"):
            AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)


def _load_weights(source: str, dtype: torch.dtype | Literal["auto"], trust_remote_code: bool) -> PreTrainedModel:
    with _loading(source, "model"):
        model, info = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, use_safetensors=True, trust_remote_code=trust_remote_code, output_loading_info=True
        )
    if info["missing_keys"] or info["mismatched_keys"]:
        names = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
        raise UserError(
            f"{source} is incomplete: {len(names)} weights are missing or of another shape, such as {names[0]}.",
            "The checkpoint may be half-written; copy or train it again.",
        )
    return model


def _grow_embeddings(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, new_tokens: Sequence[int]) -> None:
    """Make room for added tokens and start each of them at the mean of the embeddings that were there."""
    known = len(tokenizer) - len(new_tokens)
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    if not new_tokens:
        return
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            mean = layer.weight[:known].float().mean(dim=0)
            layer.weight[torch.as_tensor(new_tokens)] = mean.to(layer.weight.dtype)


@contextlib.contextmanager
def _loading(source: str, what: str) -> Iterator[None]:
    here = Path(source).exists()
    with reading(
        f"The {what} of {source}",
        "It may be half-written, no causal language model, without safetensors weights, or not reachable."
        if here
        else "There is no folder of this name either. The hub may lack it or be out of reach.",
        "cannot be loaded" if here else "cannot be loaded from the hub",
    ):
        yield
