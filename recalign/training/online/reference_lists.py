"""Reference lists: M lists a prompt, sampled once from the starting policy and stored for every reward."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import distributed

from recalign import console
from recalign.reading import read_arrays, reading
from recalign.workspace import atomic, content_hash, home, write_json

if TYPE_CHECKING:
    from recalign.api import Row
    from recalign.decoding.engine import PolicyEngine

EPOCH = 2**32
"""The epoch of reference lists: no training step has it, so that rollouts never repeat them."""
CHUNK = 64
"""Prompts a stored file: what an interruption can lose."""


@dataclass(frozen=True)
class ReferenceKey:
    """What determines reference lists.

    Args:
        model: hash of the starting policy's weights and of its titles' tokens.
        data: hash of the dataset.
        template: how prompts are written.
        exclude_history: whether items of the history may come.
        list_length: K.
        lists: M.
        temperature: of sampling.
        repetition_penalty: of sampling.
        seed: of sampling.
    """

    model: str
    data: str
    template: str
    exclude_history: bool
    list_length: int
    lists: int
    temperature: float
    repetition_penalty: float
    seed: int

    @property
    def folder(self) -> Path:
        """Where lists of this key are stored."""
        return home() / "references" / content_hash(asdict(self))


class ReferenceLists:
    """The stored lists of one key: int32 [R, M, K], by the index of their row in the training split.

    Every file in the folder holds some rows' lists (`rows` and `items`, npz without pickles) and is written in one
    piece, so that a cut-off run goes on where it stopped, and runs side by side do each other no harm.
    """

    def __init__(self, key: ReferenceKey) -> None:
        self.key, self.folder = key, key.folder
        self._place: dict[int, int] = {}
        self._items = np.zeros((0, key.lists, key.list_length), dtype=np.int32)
        self.load()

    def __len__(self) -> int:
        return len(self._place)

    def load(self) -> None:
        """Read what is stored.

        Raises:
            UserError: a file is broken.
        """
        rows, items = [np.zeros(0, dtype=np.int64)], [self._items[:0]]
        for file in sorted(self.folder.glob("*.npz")):
            stored = read_arrays(file, "rows", "items", hint="Delete it.")
            with reading(file, "Delete it.", "is no readable file of reference lists"):
                rows.append(stored["rows"].astype(np.int64, casting="same_kind"))
                items.append(stored["items"].astype(np.int32, casting="same_kind"))
                if items[-1].shape != (len(rows[-1]), *self._items.shape[1:]):
                    raise ValueError(f"its lists have the shape {items[-1].shape}")
        self._items = np.concatenate(items)
        self._place = {int(row): place for place, row in enumerate(np.concatenate(rows))}

    def missing(self, indices: np.ndarray) -> np.ndarray:
        """Return those of some rows' indices that have no lists, ascending."""
        return np.setdiff1d(indices, np.fromiter(self._place, dtype=np.int64, count=len(self._place)))

    def of(self, rows: Sequence[Row]) -> np.ndarray:
        """Return the lists of some rows: int32 [P, M, K] item indices."""
        return self._items[[self._place[row.index] for row in rows]]

    def ensure(self, engine: PolicyEngine, rows: Sequence[Row], indices: np.ndarray) -> int:
        """Sample and store the lists that are missing, shared out among the processes.

        Args:
            engine: the starting policy.
            rows: the training split.
            indices: which of its rows need lists.

        Returns:
            How many rows' lists were sampled, by all processes together.
        """
        missing = self.missing(indices)
        if len(missing):
            rank, processes = 0, 1
            if distributed.is_available() and distributed.is_initialized():
                rank, processes = distributed.get_rank(), distributed.get_world_size()
            if rank == 0:
                write_json(self.folder / "key.json", asdict(self.key))
            self._sample(engine, rows, missing[rank::processes])
            if processes > 1:
                distributed.barrier()
            self.load()
        return len(missing)

    def _sample(self, engine: PolicyEngine, rows: Sequence[Row], indices: np.ndarray) -> None:
        with console.progress(f"reference lists, {self.key.lists} a prompt", len(indices)) as advance:
            for start in range(0, len(indices), CHUNK):
                chunk = [rows[int(index)] for index in indices[start : start + CHUNK]]
                completions = engine.sample(
                    chunk,
                    group_size=self.key.lists,
                    list_length=self.key.list_length,
                    temperature=self.key.temperature,
                    repetition_penalty=self.key.repetition_penalty,
                    seed=self.key.seed,
                    epoch=EPOCH,
                )
                items = completions.items.view(len(chunk), self.key.lists, self.key.list_length)
                self._store(np.array([row.index for row in chunk]), items.numpy().astype(np.int32))
                advance(len(chunk))

    def _store(self, rows: np.ndarray, items: np.ndarray) -> None:
        name = hashlib.sha256(rows.tobytes()).hexdigest()[:16]
        with atomic(self.folder / f"{name}.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, rows=rows, items=items)


def weights_hash(model: torch.nn.Module, *, without: str = "") -> str:
    """Hash a model's parameters, names and shapes included.

    Args:
        model: on any device.
        without: leave out parameters whose names contain this, such as a fresh adapter's.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(_named(model).items()):
        if without and without in name:
            continue
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        digest.update(parameter.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _named(model: torch.nn.Module) -> Mapping[str, torch.Tensor]:
    return dict(model.named_parameters())
