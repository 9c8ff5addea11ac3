"""Reading and writing models on disk: finding a folder, tokenizer, weights, adapter; every failure told apart."""

from __future__ import annotations

import contextlib
import hashlib
import io
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel, load_peft_weights, set_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from recalign import threads
from recalign.errors import UserError
from recalign.models.builtin import is_from_scratch, parse_builtin
from recalign.models.gguf import PACKAGED, SUFFIX, check_gguf, is_gguf
from recalign.models.hardware import ANY, Hardware, keep_differentiable
from recalign.models.lora import LoraOptions, attach_adapter, load_adapter
from recalign.models.modules import attached, language_model_state, module_names, restore_modules, save_modules
from recalign.models.unpacked import is_unpacked, unpacked
from recalign.reading import read_object, reading
from recalign.workspace import RUN_FILE, RunFolder, file_ends

KINDS = "a run folder, a Hugging Face folder or hub name, a .gguf file, builtin:smollm2 or builtin:tiny"
SMALL = 2_000_000
ADAPTER = "adapter_config.json"
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


def find_model(name: str | Path) -> Path | None:
    """Return the Hugging Face folder or the GGUF file that a run folder, path or package names; None for a hub name.

    Raises:
        UserError: the path exists but holds no model; the package is not installed.
    """
    if str(name) in PACKAGED:
        return PACKAGED[str(name)].file()
    path = Path(name)
    if not path.exists():
        owned = str(name).count("/") == 1 and not path.is_absolute() and not path.parent.is_dir()  # owner/name
        if path.suffix == SUFFIX or (not owned and str(name) != path.name):  # nor a name alone, such as gpt2
            raise UserError(f"{name} does not exist.", f"Name {KINDS}.")
        return None
    if is_gguf(path):
        return path.resolve()
    for folder in (path / "model", path):
        if (folder / "config.json").is_file() or (folder / ADAPTER).is_file():
            return folder.resolve()
    record = RunFolder(path).record
    unfinished = record and record.get("status") != "done"
    raise UserError(
        f"{path} holds no model (no config.json or adapter_config.json, nor a folder `model` with one).",
        f"Its `recalign {record['command']}` is unfinished: go on with --resume." if unfinished else f"Name {KINDS}.",
    )


def modules_of(name: str | Path) -> frozenset[str]:
    """Name the modules that were trained beside what a run folder or path names; none of a hub name."""
    found = None if is_from_scratch(str(name)) else find_model(name)
    return frozenset() if found is None or found.is_file() else module_names(found)


def has_adapter(name: str | Path) -> bool:
    """Whether what a run folder or path names is an adapter, which training goes on with; False for a hub name."""
    found = None if is_from_scratch(str(name)) else find_model(name)
    return found is not None and (found / ADAPTER).is_file()


def model_hash(name: str) -> str:
    """Return what tells one model from another without loading it: its name, or its files' sizes, ends and settings."""
    found = None if is_from_scratch(name) else find_model(name)
    if found is None:
        return name
    digest = hashlib.sha256()
    weights, settings = found.glob("*.safetensors"), set(found.glob("*.json")) - {found / RUN_FILE}
    for file in sorted([*weights, *settings]) if found.is_dir() else [found]:
        digest.update(file_ends(file))
    return digest.hexdigest()[:16]


def share_cores(model: PreTrainedModel | PeftModel) -> None:
    """Let a model on the CPU take the threads that it is asked to, or that are free; a small one takes one."""
    if model.device.type == "cpu":
        threads.use(small=model.num_parameters() < SMALL)


def quieten_libraries() -> None:
    """Turn off progress bars and remarks of transformers: what matters reaches the user through our own errors.

    Warnings of what a later version will rename concern those who call it, peft for one, and nobody else.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.")
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()


def load_tokenizer(source: str, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model.

    Args:
        source: a folder, a GGUF file, a hub name, or the name of a packaged model.
        trust_remote_code: run code that comes with the model.

    Raises:
        UserError: there is none, or it is broken.
    """
    with _loading(source, "tokenizer"):
        place, arguments = _place(source)
    files = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "spiece.model")
    if Path(source).is_dir() and not any((Path(source) / file).is_file() for file in files):
        raise UserError(
            f"{source} has no tokenizer.", "Copy the tokenizer's files (tokenizer.json ...) into the folder."
        )
    if not arguments:  # a GGUF file may lie anywhere
        check_files(Path(place))
    with _loading(source, "tokenizer"):
        return AutoTokenizer.from_pretrained(place, trust_remote_code=trust_remote_code, **arguments)


def load_model(
    source: str,
    tokenizer: PreTrainedTokenizerBase,
    new_tokens: Sequence[int],
    *,
    dtype: torch.dtype | Literal["auto"],
    trust_remote_code: bool,
    lora: LoraOptions | None,
    trainable: bool,
    hardware: Hardware = ANY,
) -> PreTrainedModel | PeftModel:
    """Load weights, or an adapter on its base; make room for added tokens; attach an adapter where one is wanted.

    Args:
        source: a folder, a GGUF file, a hub name, or the name of a packaged model.
        tokenizer: its tokenizer, to which tokens may have been added.
        new_tokens: ids of the tokens that were added.
        dtype: of the weights; `auto`: as they were saved.
        trust_remote_code: run code that comes with the model.
        lora: attach such an adapter.
        trainable: whether a saved adapter will be trained further.
        hardware: whether and how the weights are quantised.

    Raises:
        UserError: no such model, or a broken, half-written or unsuitable one; quantised weights without an adapter to
            train.
    """
    adapter = Path(source) / ADAPTER
    if not adapter.is_file():
        if hardware.quantization and trainable and lora is None:
            raise UserError(
                f"Weights of {hardware.quantization} stay as they are; there is nothing to train.",
                "Add --lora: an adapter is trained beside them (QLoRA).",
            )
        model = _load_weights(source, dtype, trust_remote_code, hardware)
        _grow_embeddings(model, tokenizer, new_tokens)
        return model if lora is None else attach_adapter(model, lora, new_tokens)
    check_files(Path(source))
    if not (Path(source) / ADAPTER_FILE).is_file():
        raise UserError(
            f"{source} has no {ADAPTER_FILE}; pickled weights, such as adapter_model.bin, can run code and are not "
            "read.",
            "Save the adapter again as safetensors.",
        )
    saved = read_object(adapter)
    if lora is not None:
        _check_alike(source, saved, lora)
    base = saved.get("base_model_name_or_path")
    if not isinstance(base, str):
        raise UserError(f"{adapter}: base_model_name_or_path is {base!r}, no model.", "Mend the file.")
    model = _load_weights(base, dtype, trust_remote_code, hardware)
    _grow_embeddings(model, tokenizer, [])
    with _loading(source, "adapter"):
        return load_adapter(model, Path(source), trainable=trainable)


def _check_alike(source: str, saved: dict[str, Any], wanted: LoraOptions) -> None:
    """Refuse to go on with an adapter as if it were another one.

    Raises:
        UserError: rank, alpha or the layers that are named differ.
    """
    options = {"rank": (saved.get("r"), wanted.rank), "alpha": (saved.get("lora_alpha"), wanted.alpha)}
    other = [f"{name} {is_} and not {asked:g}" for name, (is_, asked) in options.items() if is_ != asked]
    layers = saved.get("target_modules") or []
    if wanted.target != ("all-linear",) and sorted(wanted.target) != sorted(layers):
        other.append(f"the layers {', '.join(sorted(layers))} and not {', '.join(sorted(wanted.target))}")
    if other:
        raise UserError(
            f"{source} has an adapter already, with {' and '.join(other)}.",
            "Leave --lora out to train it further, or merge it first: recalign export --model MODEL --out FOLDER.",
        )


def check_files(folder: Path) -> None:
    """Refuse a model's folder whose files are not what their names say, before a library stumbles over them.

    Args:
        folder: a Hugging Face folder; of a hub name, which is no folder, nothing is checked.

    Raises:
        UserError: a JSON file is none, holds no object or is nested too deeply; a file of weights is empty or cut off.
    """
    hint = "It may be half-written: copy the file again, or train the model again."
    for file in sorted(folder.glob("*.json")):
        if file.name not in FREE_JSON:
            read_object(file, hint, finite=False)
    for file in sorted(folder.glob("*.safetensors")):
        with reading(file, hint, "holds no whole weights"), safe_open(file, framework="pt") as opened:
            opened.keys()


def check_model(name: str, trust_remote_code: bool = False) -> None:
    """Refuse a model that is not there, by its configuration alone: nothing large is read.

    Args:
        name: a run folder, a Hugging Face folder or hub name, a GGUF file, or a built-in model.
        trust_remote_code: run code that comes with the model.

    Raises:
        UserError: no such model, or a broken configuration.
    """
    if is_from_scratch(name):
        parse_builtin(name)
        return
    found = find_model(name)
    if found is not None and found.is_file():
        if not is_unpacked(found):
            check_gguf(found)
        return
    place = str(found or name)
    check_files(Path(place))
    if not (Path(place) / ADAPTER).is_file():
        with _loading(name, "configuration"):
            AutoConfig.from_pretrained(place, trust_remote_code=trust_remote_code)


def _place(source: str) -> tuple[str, dict[str, Any]]:
    """Return what `from_pretrained` takes first: a folder, that of an unpacked GGUF file too, or a hub name.

    Also which of the folder's files to read, where that is a GGUF file which cannot be unpacked.
    """
    found = find_model(source)
    if found is None or found.is_dir():
        return str(found or source), {}
    folder = unpacked(found)
    return (str(found.parent), {"gguf_file": found.name}) if folder is None else (str(folder), {})


def _load_weights(
    source: str, dtype: torch.dtype | Literal["auto"], trust_remote_code: bool, hardware: Hardware
) -> PreTrainedModel:
    quantized = hardware.quantized_loading(torch.float32 if dtype == "auto" else dtype)
    with _loading(source, "model"):
        place, arguments = _place(source)
    if arguments:
        arguments["quantization_config"] = GgufConfig(dequantize=True)
        dtype = torch.float32 if dtype == "auto" else dtype
    if arguments and quantized:
        with tempfile.TemporaryDirectory() as folder:  # of whole weights, which are quantised anew
            _from_files(source, place, arguments, dtype, trust_remote_code).save_pretrained(folder)
            model = _from_files(source, folder, quantized, dtype, trust_remote_code)
    else:
        model = _from_files(source, place, arguments or quantized, dtype, trust_remote_code)
    if quantized:
        keep_differentiable(model)
    found = find_model(source)
    if found is not None and found.is_file():  # what an adapter's files will call its base
        model.name_or_path = model.config._name_or_path = source
    return model


def _from_files(
    source: str, place: str, arguments: dict[str, Any], dtype: torch.dtype | Literal["auto"], trust_remote_code: bool
) -> PreTrainedModel:
    with _loading(source, "model"), contextlib.redirect_stderr(io.StringIO()):  # a bar that cannot be turned off
        model, info = AutoModelForCausalLM.from_pretrained(
            place,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            **arguments,
        )
    if info["missing_keys"] or info["mismatched_keys"]:
        names = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
        raise UserError(
            f"{source} is incomplete: {len(names)} weights are missing or of another shape, such as {names[0]}.",
            "The checkpoint may be half-written; copy or train it again.",
        )
    return model


def _grow_embeddings(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, new_tokens: Sequence[int]) -> None:
    """Make room for added tokens and start each of them at the mean of the embeddings that were there.

    So do tokens that the tokenizer had before and the model had no room for.
    """
    room = model.get_input_embeddings().weight.shape[0]
    known = min(len(tokenizer) - len(new_tokens), room)
    if len(tokenizer) > room:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    fresh = sorted({*new_tokens, *range(room, len(tokenizer))})
    if not fresh:
        return
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            mean = layer.weight[:known].float().mean(dim=0)
            layer.weight[torch.as_tensor(fresh)] = mean.to(layer.weight.dtype)


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
