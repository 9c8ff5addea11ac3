"""GGUF files as Hugging Face folders: each is read once, and what it holds is kept in a cache.

Reading one takes tens of seconds of Python, in every command that uses the model; a folder of safetensors takes one.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import io
import os
import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch
from huggingface_hub.constants import HF_HOME
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from recalign import console
from recalign.errors import UserError
from recalign.models.gguf import check_gguf
from recalign.workspace import atomic

VARIABLE = "RECALIGN_CACHE"
"""Environment variable that names the cache; by default it lies where Hugging Face's libraries keep theirs."""


def cache_folder() -> Path:
    """Return where unpacked models are kept."""
    return Path(os.environ.get(VARIABLE) or Path(HF_HOME) / "recalign")


def unpacked(file: Path) -> Path:
    """Return a folder with the tokenizer and the float32 weights of a GGUF file, which is read if it is not there yet.

    Where the cache cannot be written, the folder lasts as long as the process.

    Raises:
        UserError: transformers cannot read the file (see `check_gguf`).
    """
    folder = cache_folder() / f"{file.stem}-{_digest(file)}"
    if _whole(folder):
        return folder
    check_gguf(file)
    console.say(f"{file.name} is unpacked once, into {folder}.")
    try:
        with atomic(folder, replace=False) as written:
            _unpack(file, written)
    except UserError as error:
        if _whole(folder):  # another process was faster
            return folder
        if not isinstance(error.__cause__, OSError):
            raise
        console.warn(f"{error.what} {file.name} is unpacked for this process alone; {VARIABLE} names another place.")
        return _temporary(file)
    return folder


def _whole(folder: Path) -> bool:
    """Whether a model was unpacked here: it is renamed when it is whole."""
    return (folder / "config.json").is_file()


@cache
def _temporary(file: Path) -> Path:
    folder = tempfile.TemporaryDirectory(prefix="recalign-")
    atexit.register(folder.cleanup)
    _unpack(file, Path(folder.name))
    return Path(folder.name)


def _unpack(file: Path, folder: Path) -> None:
    place = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    with contextlib.redirect_stderr(io.StringIO()):  # bars that cannot be turned off
        tokenizer = AutoTokenizer.from_pretrained(**place)
        model = AutoModelForCausalLM.from_pretrained(
            **place, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
        tokenizer.save_pretrained(str(folder))
        model.save_pretrained(str(folder))


def _digest(file: Path) -> str:
    """What tells one file from another, and what one version of transformers makes of it from another's."""
    about = file.stat()
    told = f"{file.resolve()} {about.st_size} {about.st_mtime_ns} {version('transformers')}"
    return hashlib.sha256(told.encode()).hexdigest()[:16]
