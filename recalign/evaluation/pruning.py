"""Pruning rate: targets that a beam lost although the model ranks them among its K best (BEAR, SIGIR 2026, Fig. 6)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recalign.api import Predictions, Row
from recalign.errors import UserError
from recalign.runs.predictions import read_predictions
from recalign.workspace import RunFolder

if TYPE_CHECKING:
    import polars as pl

    from recalign.data.dataset import PreparedDataset

METRIC = re.compile(r"pr@([1-9]\d*)")
HINT = "Decode the same rows twice with one model: `recalign decode`, and again with --decoder exact."


def split_cutoffs(metrics: Sequence[str], *, asked: bool, list_length: int) -> tuple[list[str], list[int]]:
    """Part the pruning rates from the other metrics.

    Args:
        metrics: as users name them; `pr@10` is a pruning rate.
        asked: whether exact predictions are given; where no rate is named then, every cutoff of the metrics is meant.
        list_length: K, the one cutoff where the metrics name none either.

    Returns:
        The other metrics, and the cutoffs of the rates.

    Raises:
        UserError: a rate without exact predictions, one given twice, or one beyond the lists.
    """
    named = [int(match[1]) for match in map(METRIC.fullmatch, metrics) if match]
    others = [name for name in metrics if not METRIC.fullmatch(name)]
    if named and not asked:
        raise UserError(
            f"pr@{named[0]} needs the model's exact top {named[0]}.",
            "Decode with --decoder exact and name that folder: `recalign eval PREDICTIONS --exact FOLDER`.",
        )
    if not asked:
        return others, []
    implied = sorted({int(digits) for name in others for digits in re.findall(r"@\s*(\d+)", name)})
    cutoffs = named or implied or [list_length]
    twice = next((k for k in cutoffs if cutoffs.count(k) > 1), None)
    if twice is not None:
        raise UserError(f"The metric pr@{twice} is asked for twice.", "Name it once.")
    _check_reach(cutoffs, list_length, "lists")
    return others, cutoffs


def pruning_rates(
    predictions: Predictions, exact: Predictions, rows: Sequence[Row], cutoffs: Sequence[int]
) -> dict[str, pl.Series]:
    """Measure what each list lost.

    Args:
        predictions: U lists of a beam.
        exact: U lists, the true best titles of the same rows.
        rows: [U] what both answer.
        cutoffs: k of each rate.

    Returns:
        `pr@k` -> [U] share of the row's relevant targets that are among the first k of the exact list and nowhere in
        the beam's: 0 or 1 where a row has one target, null where it has none that is relevant.
    """
    import polars as pl

    values: dict[str, list[float | None]] = {f"pr@{k}": [] for k in cutoffs}
    for place, row in enumerate(rows):
        targets = np.unique(row.targets[row.gains > 0])
        lost = np.setdiff1d(targets, predictions.items[place, : predictions.lengths[place]])
        for k in cutoffs:
            among = np.isin(lost, exact.items[place, : min(k, exact.lengths[place])])
            values[f"pr@{k}"].append(float(among.sum() / len(targets)) if len(targets) else None)
    return {name: pl.Series(name, found, dtype=pl.Float64) for name, found in values.items()}


def read_exact(
    folder: Path, other: Path, dataset: PreparedDataset, split: str, rows: Sequence[Row], cutoffs: Sequence[int]
) -> Predictions:
    """Read the `exact` decoder's predictions that belong to another decoder's.

    Args:
        folder: the exact ones.
        other: decode folder of the predictions to measure.
        dataset: that both were made for.
        split: whose rows they answer.
        rows: [U] the rows of `other`.
        cutoffs: k of each rate.

    Returns:
        U lists, in the order of `rows`.

    Raises:
        UserError: not made by `exact`, or made for another model, dataset, split, scoring; rows left out; too short.
    """
    record = RunFolder(folder).record
    _check_same(folder, record, other, RunFolder(other).record)
    size = int(record["options"]["size"])
    _check_reach(cutoffs, size, f"lists of {folder}")
    exact, answered = read_predictions(folder, dataset, split, size)
    places = {row.index: place for place, row in enumerate(answered)}
    missing = [row for row in rows if row.index not in places]
    if missing:
        raise UserError(
            f"{folder} leaves out {len(missing)} of the {len(rows)} rows of '{split}' in {other}, such as row "
            f"{missing[0].index}.",
            HINT,
        )
    order = [places[row.index] for row in rows]
    return Predictions(exact.items[order], exact.scores[order], exact.lengths[order])


def _check_same(folder: Path, exact: Mapping[str, Any], other: Path, measured: Mapping[str, Any]) -> None:
    """Hold the two decode runs against each other: one may only be the other's exact version."""
    one, two = exact.get("options", {}), measured.get("options", {})
    if one.get("decoder") != "exact":
        raise UserError(f"{folder} was decoded by {one.get('decoder')!r}, not by 'exact'.", HINT)
    if two.get("decoder") != "beam":
        raise UserError(
            f"{other} was decoded by {two.get('decoder')!r}, which ranks by something else than probability.",
            "Decode with --decoder beam.",
        )
    if two.get("params", {}).get("length_penalty"):
        penalty = two["params"]["length_penalty"]
        raise UserError(
            f"{other} was decoded with length_penalty={penalty}, which ranks by something else than probability.",
            "Decode with -p length_penalty=0.",
        )
    pairs = {
        "models": (exact.get("inputs", {}).get("model"), measured.get("inputs", {}).get("model")),
        "datasets": (exact.get("inputs", {}).get("data"), measured.get("inputs", {}).get("data")),
        "scorings": (one.get("params", {}).get("scoring"), two.get("params", {}).get("scoring")),
        **{name: (one.get(key), two.get(key)) for name, key in _ALIKE.items()},
    }
    for name, (left, right) in pairs.items():
        if left != right:
            raise UserError(f"{folder} and {other} are of different {name}: {left!r} and {right!r}.", HINT)


_ALIKE = {"splits": "split", "rules on history items (exclude_history)": "exclude_history", "dtypes": "dtype"}


def _check_reach(cutoffs: Sequence[int], size: int, what: str) -> None:
    """Refuse pr@k beyond the end of lists."""
    if cutoffs and max(cutoffs) > size:
        raise UserError(
            f"pr@{max(cutoffs)} looks at {max(cutoffs)} positions, and the {what} have {size}.",
            f"Use pr@{size} or less, or decode with a larger --size.",
        )
