"""Decode a split into a run folder, and count what it costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recalign import console
from recalign.api import Decoder, Predictions, Row
from recalign.errors import UserError
from recalign.reading import read_arrays, reading
from recalign.removal import discard
from recalign.runs.cost import MemoryWatch
from recalign.runs.predictions import PREDICTIONS_FILE, write_predictions
from recalign.variations import VARIATIONS
from recalign.workspace import atomic

PARTS = "parts"
MAKES = (PARTS, PREDICTIONS_FILE, VARIATIONS)
COLUMNS = tuple(field.name for field in fields(Predictions))

if TYPE_CHECKING:
    from recalign.data.dataset import PreparedDataset
    from recalign.decoding.engine import Cost, PolicyEngine
    from recalign.models.policy import Policy


class DecodeRun:
    """Decodes a split into a run folder, saving batch by batch, so that an interrupted run goes on where it was.

    Args:
        folder: of the run, which is begun.
        policy: the model.
        dataset: whose catalogue it writes.
        decoder: how to decode.
        size: K.
        seed: what decoders sample with.
        batch_size: rows between two saves.
        share: rank of this process and number of processes, each of which decodes its share of the batches.
        wait: waits until all processes have come to it.
        what: is decoded, for the progress bar.
    """

    def __init__(
        self,
        folder: Path,
        policy: Policy,
        dataset: PreparedDataset,
        decoder: Decoder,
        *,
        size: int,
        seed: int,
        batch_size: int,
        share: tuple[int, int] = (0, 1),
        wait: Callable[[], None] = lambda: None,
        what: str = "",
    ) -> None:
        self.rank, self.processes, self.wait = *share, wait
        self.folder, self.policy, self.dataset, self.decoder = folder, policy, dataset, decoder
        self.size, self.seed, self.batch_size = size, seed, batch_size
        self.parts, self.what = folder / PARTS, what or decoder.name

    def __call__(self, rows: Sequence[Row], exclude_history: bool, token_budget: int) -> dict[str, Any]:
        """Answer the rows, write `predictions.parquet`; return the run's results, which the first process has."""
        from recalign.decoding.batches import concatenate
        from recalign.decoding.engine import PolicyEngine

        memory = MemoryWatch(self.policy.device)
        engine = PolicyEngine(
            self.policy,
            self.dataset.catalogue,
            exclude_history=exclude_history,
            token_budget=token_budget,
            seed=self.seed,
        )
        with console.progress(f"decode ({self.what})", len(rows)) as advance:
            self.wait()  # until the first process has claimed the folder
            starts = range(0, len(rows), self.batch_size)
            mine = {start: self._part(engine, rows, start, advance) for start in starts[self.rank :: self.processes]}
            self.wait()
            if self.rank:
                return {}
            parts = [mine.get(start) or self._part(engine, rows, start, advance) for start in starts]
        predictions = concatenate([part for part, _, _ in parts], self.size)
        truncated = sum(count for _, _, count in parts)
        self.policy.prompter.tell(truncated)
        write_predictions(self.folder, predictions, rows, self.dataset.catalogue)
        discard(self.parts, inside=self.folder)
        return {
            "decoder": self.decoder.name,
            "oracle": self.decoder.oracle,
            "task": self.dataset.task,
            "rows": len(rows),
            "truncated_prompts": truncated,
            "trie": self.policy.cached_trie.as_dict(),
            "cost": total_cost([cost for _, cost, _ in parts], memory.peak_mb()),
        }

    def _part(
        self, engine: PolicyEngine, rows: Sequence[Row], start: int, advance: Callable[[int], None]
    ) -> tuple[Predictions, Cost, int]:
        """Decode one batch, or read it where an interrupted run left it: lists, cost, and how many prompts were cut."""
        from recalign.decoding.batches import decode_rows
        from recalign.decoding.engine import Cost

        batch = rows[start : start + self.batch_size]
        file = self.parts / f"{start}.npz"
        saved = self._saved(file, len(batch))
        if saved:
            predictions = Predictions(*(saved.get(name) for name in COLUMNS))
            cost, truncated = Cost(*saved["cost"].tolist()), int(saved["truncated"])
        else:
            engine.cost, before = Cost(), self.policy.prompter.truncated
            predictions = decode_rows(engine, self.decoder, batch, self.size, len(batch))
            cost, truncated = engine.cost, self.policy.prompter.truncated - before
            with atomic(file) as temporary, temporary.open("wb") as stream:
                arrays = {name: array for name, array in asdict(predictions).items() if array is not None}
                np.savez(stream, **arrays, cost=np.array(astuple(cost)), truncated=truncated)
        advance(len(batch))
        return predictions, cost, truncated

    def _saved(self, file: Path, rows: int) -> dict[str, np.ndarray]:
        """Read what an interrupted run left of a batch; nothing where there is none that can be used."""
        from recalign.decoding.engine import Cost

        if not file.is_file():
            return {}
        try:
            with reading(file, ""):
                saved = read_arrays(file)  # rationales among them, where there are some
                shapes = [
                    saved[name].shape if name in saved else None
                    for name in ("items", "scores", "lengths", "cost", "truncated")
                ]
                if shapes[:3] != [(rows, self.size)] * 2 + [(rows,)] or shapes[3:] != [(len(fields(Cost)),), ()]:
                    raise ValueError("it is no batch of these rows")
                return saved
        except UserError as error:
            console.warn(f"{error.what} This batch is decoded again.")
            discard(file, inside=self.folder)
            return {}


def total_cost(costs: Sequence[Cost], peak_memory_mb: float) -> dict[str, float]:
    """Add up what was spent: prompts, tokens of prompts and lists, passes, seconds.

    Args:
        costs: of the parts.
        peak_memory_mb: most memory that the decoding held.
    """
    total: dict[str, float] = {}
    for cost in costs:
        for name, value in asdict(cost).items():
            total[name] = total.get(name, 0) + value
    seconds = total.get("seconds", 0.0)
    counts = {name: int(value) for name, value in total.items() if name != "seconds"}
    tokens = counts["prompt_tokens"] + counts["completion_tokens"]
    return {
        **counts,
        "seconds": seconds,
        "prompts_per_second": counts["prompts"] / seconds if seconds else 0.0,
        "tokens_per_second": tokens / seconds if seconds else 0.0,
        "peak_memory_mb": peak_memory_mb,
    }
