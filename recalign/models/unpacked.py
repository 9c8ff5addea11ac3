"""GGUF files as Hugging Face folders: each is read once, and what it holds is kept in a cache.

Reading one takes tens of seconds of Python, in every command that uses the model; a folder of safetensors takes one.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import torch
from huggingface_hub.constants import HF_HOME
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from recalign import console
from recalign.errors import UserError
from recalign.models.gguf import check_gguf
from recalign.reading import read_object
from recalign.workspace import atomic, file_ends, locked, write_json

VARIABLE = "RECALIGN_CACHE"
"""Environment variable that names the cache; by default it lies where Hugging Face's libraries keep theirs."""
LISTING = "unpacked.json"
"""What an unpacked folder consists of: its files' sizes, by which one that lost something is told."""
_unwritable: set[Path] = set()  # folders that this process could not write, and has said so


def cache_folder() -> Path:
    """Return where unpacked models are kept."""
    return Path(os.environ.get(VARIABLE) or Path(HF_HOME) / "recalign")


def unpacked(file: Path) -> Path | None:
    """Return a folder with the tokenizer and the float32 weights of a GGUF file, which is read if it is not there yet.

    Of processes that ask at once, one reads the file and the others wait for it.

    Returns:
        The folder; None where the cache cannot be written, so that the file itself has to be read.

    Raises:
        UserError: transformers cannot read the file (see `check_gguf`).
    """
    folder = _folder(file)
    if _whole(folder):
        return folder
    check_gguf(file)
    if folder in _unwritable:
        return None
    try:
        with locked(folder.parent):
            if not _whole(folder):
                with atomic(folder) as written:
                    written.mkdir()
                    console.say(f"{file.name} is unpacked once, into {folder}.")
                    _unpack(file, written)
    except UserError as error:
        if not _whole(folder):  # where there are no locks, another process may have been faster
            _unwritable.add(folder)
            console.warn(f"{error.what} {file.name} is read anew by every command; {VARIABLE} names another place.")
            return None
    return folder


def is_unpacked(file: Path) -> bool:
    """Whether a GGUF file lies in the cache as a whole, so that it need not be read."""
    return _whole(_folder(file))


def _folder(file: Path) -> Path:
    """Return where a file is unpacked to: its name, and what tells its content and transformers' reading of it."""
    digest = hashlib.sha256(file_ends(file))
    digest.update(f"{file.stat().st_mtime_ns} {version('transformers')}".encode())
    return cache_folder() / f"{file.stem}-{digest.hexdigest()[:16]}"


def _whole(folder: Path) -> bool:
    """Whether a folder has all that was unpacked into it."""
    try:
        sizes = read_object(folder / LISTING).get("sizes")
    except UserError:
        return False
    return isinstance(sizes, dict) and bool(sizes) and sizes == _sizes(folder, sizes)


def _sizes(folder: Path, names: Iterable[str]) -> dict[str, int]:
    return {name: (folder / name).stat().st_size for name in names if (folder / name).is_file()}


def _unpack(file: Path, folder: Path) -> None:
    """Read a file and write what it holds.

    Raises:
        OSError: the folder cannot be written.
    """
    place = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    with contextlib.redirect_stderr(io.StringIO()):  # bars that cannot be turned off
        tokenizer = AutoTokenizer.from_pretrained(**place)
        model = AutoModelForCausalLM.from_pretrained(
            **place, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
        try:
            model.save_pretrained(str(folder))
            tokenizer.save_pretrained(str(folder))
        except Exception as error:  # of a full disk, safetensors and tokenizers tell by exceptions of their own
            raise OSError(str(error)) from error
    write_json(folder / LISTING, {"file": file.name, "sizes": _sizes(folder, sorted(os.listdir(folder)))})
