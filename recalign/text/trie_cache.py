"""The title trie on disk, beside the dataset: built once a tokenizer, then mapped into memory."""

from __future__ import annotations

import contextlib
import time
import zlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from recalign.errors import UserError
from recalign.text.trie import TitleTrie
from recalign.workspace import atomic

if TYPE_CHECKING:
    from recalign.text.item_tokens import TitleTokens

FOLDER = ".tries"
"""In a dataset's folder; hidden, because it is no part of the dataset."""
FORMAT = "1"
"""Version of the file format, to be changed with the tensors of TitleTrie."""


@dataclass(frozen=True)
class CachedTrie:
    """A trie and what it took to get it.

    Args:
        trie: on the CPU.
        seconds: wall-clock time of building or reading it.
        read: whether it was read from disk.
    """

    trie: TitleTrie
    seconds: float
    read: bool

    def as_dict(self) -> dict[str, Any]:
        """Return what run.json records of the trie."""
        megabytes = self.trie.bytes / 2**20
        facts = {"titles": self.trie.items, "nodes": self.trie.nodes, "megabytes": megabytes}
        return {**facts, "seconds": self.seconds, "read": self.read}

    @property
    def line(self) -> str:
        """One line that tells the user the size of the trie and how long it took."""
        how = "read" if self.read else "built"
        return (
            f"title trie: {self.trie.items:,} titles, {self.trie.nodes:,} nodes, {self.trie.bytes / 2**20:.1f} MB, "
            f"{how} in {self.seconds:.2f} s"
        )


def cached_trie(titles: TitleTokens, folder: Path | None) -> CachedTrie:
    """Read the trie of some titles, or build and cache it.

    The file is named by the fingerprint of the token paths, so every tokenizer has its own. One that is stale, cut off
    or changed (it carries a checksum) is built again; where nothing can be written, nothing is cached.

    Args:
        titles: the token paths.
        folder: where tries are cached, or None.

    Raises:
        UserError: see `TitleTrie.build`.
    """
    started = time.perf_counter()
    file = None if folder is None else Path(folder) / f"{titles.fingerprint}.safetensors"
    trie = None if file is None else _read(file, titles.fingerprint)
    found = trie is not None
    if trie is None:
        trie = TitleTrie.build(titles)
    seconds = time.perf_counter() - started
    if file is not None and not found:
        with contextlib.suppress(UserError, OSError, SafetensorError), atomic(file) as temporary:
            _write(trie, temporary, titles.fingerprint)
    return CachedTrie(trie, seconds, found)


def _tensors(trie: TitleTrie) -> dict[str, torch.Tensor]:
    return {field.name: getattr(trie, field.name).contiguous() for field in fields(trie)}


def _write(trie: TitleTrie, file: Path, fingerprint: str) -> None:
    tensors = _tensors(trie)
    save_file(tensors, file, {"format": FORMAT, "titles": fingerprint, "checksum": _checksum(tensors)})


def _read(file: Path, fingerprint: str) -> TitleTrie | None:
    """Return the trie in a file, or None where there is none that can be trusted."""
    try:
        with safe_open(file, framework="pt") as opened:
            facts = opened.metadata() or {}
            if (facts.get("format"), facts.get("titles")) != (FORMAT, fingerprint):
                return None
            trie = TitleTrie(**{field.name: opened.get_tensor(field.name) for field in fields(TitleTrie)})
    except (OSError, SafetensorError):
        return None
    return trie if _checksum(_tensors(trie)) == facts.get("checksum") else None


def _checksum(tensors: dict[str, torch.Tensor]) -> str:
    value = 0
    for tensor in tensors.values():
        value = zlib.crc32(tensor.numpy().data, value)
    return str(value)
