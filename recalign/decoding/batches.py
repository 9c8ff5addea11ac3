"""Run a decoder over many rows, batch by batch, holding plugins to their contract."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recalign.api import INVALID, Decoder, Predictions, Row
from recalign.decoding.engine import PolicyEngine
from recalign.errors import UserError
from recalign.plugins.registry import blamed, plugin_error
from recalign.tasks import Task


def decode_rows(
    engine: PolicyEngine,
    decoder: Decoder,
    rows: Sequence[Row],
    size: int,
    batch_size: int = 256,
) -> Predictions:
    """Recommend `size` items for each of U rows.

    Args:
        engine: the model.
        decoder: how to decode.
        rows: U rows.
        size: K.
        batch_size: rows handed to the decoder at once.

    Raises:
        UserError: a plugin of another package raises, or returns predictions of another shape; it is named.
    """
    parts = []
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        parts.append(_decode(engine, decoder, batch, size))
    return concatenate(parts, size)


def concatenate(parts: Sequence[Predictions], size: int) -> Predictions:
    """Lay the predictions of several batches end to end, padded to K positions."""

    def joined(arrays: list[np.ndarray], fill: float | str) -> np.ndarray:
        return np.concatenate(
            [np.pad(a, ((0, 0), (0, size - a.shape[1])), constant_values=fill) for a in arrays]  # type: ignore[arg-type]
        )

    texts = [part.rationales for part in parts if part.rationales is not None]
    lowest = min((part.scores.min(initial=0.0) for part in parts), default=0.0)
    return Predictions(
        items=joined([part.items for part in parts], -1),
        scores=joined([part.scores for part in parts], lowest - 1),
        lengths=np.concatenate([part.lengths for part in parts]),
        rationales=joined(texts, "") if texts else None,
    )


def _decode(engine: PolicyEngine, decoder: Decoder, rows: Sequence[Row], size: int) -> Predictions:
    """Decode one batch and hold the decoder to its contract."""
    with blamed("decoder", decoder, "decode"):
        found = decoder.decode(engine, rows, size)
    problem = contract_problem(found, len(rows), size, len(engine.catalogue))
    if problem:
        raise plugin_error("decoder", decoder, problem)
    return found


def contract_problem(found: Predictions, rows: int, size: int, items: int) -> str:
    """Say in what a decoder's predictions break its contract; empty where they keep it.

    Args:
        found: what `decode` returned.
        rows: U, how many rows it was handed.
        size: K, the items per list that were asked for.
        items: I, the size of the catalogue.
    """
    if not isinstance(found, Predictions):
        return f"returned {type(found).__name__}, not Predictions"
    listed, scores, lengths = (np.asarray(part) for part in (found.items, found.scores, found.lengths))
    fits = listed.shape == scores.shape and listed.ndim == 2 and len(listed) == len(lengths) == rows
    if not fits or listed.shape[1] > size or lengths.max(initial=0) > listed.shape[1] or lengths.min(initial=0) < 0:
        return (
            f"returned items {list(listed.shape)}, scores {list(scores.shape)} and {len(lengths)} lengths for "
            f"{rows} rows and {size} items, not items and scores [rows, size] and one length a row"
        )
    if not np.issubdtype(listed.dtype, np.integer):
        return f"returned items of type {listed.dtype}, not whole numbers"
    strange = listed[(listed < INVALID) | (listed >= items)]
    if len(strange):
        return f"returned the item {strange[0]}, and the catalogue has the items 0 to {items - 1}"
    if np.isnan(scores[np.arange(listed.shape[1]) < lengths[:, None]].astype(np.float64)).any():
        return "returned NaN as a score"
    return ""


def check_task(decoder: Decoder, task: Task) -> None:
    """Refuse a decoder that does not serve a task.

    Raises:
        UserError: it does not; those that do are named.
    """
    if task.name not in decoder.tasks:
        raise UserError(
            f"The decoder '{decoder.name}' serves the task {' and '.join(sorted(decoder.tasks))}, not '{task.name}'.",
            f"Use another decoder, such as {', '.join(task.decoders)}.",
        )
