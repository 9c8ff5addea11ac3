"""Exact predictions beside a beam's, which pruning rates read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recalign.api import Catalogue, Decoder, Predictions, Row
from recalign.errors import UserError
from recalign.evaluation.per_user import parse_metrics
from recalign.metrics.expression import parse_metric
from recalign.plugins.registry import create
from recalign.runs.predictions import read_predictions
from recalign.workspace import RunFolder

if TYPE_CHECKING:
    from recalign.data.dataset import PreparedDataset

HINT = "Decode the same rows twice with one model: `recalign decode`, and again with --decoder exact."


def with_pruning_rates(metrics: Sequence[str], catalogue: Catalogue, list_length: int) -> list[str]:
    """Add the pruning rate at every cutoff of the metrics, where none of them reads exact predictions.

    Args:
        metrics: as users name them.
        catalogue: that they are bound to.
        list_length: K, the one cutoff where the metrics name none.

    Raises:
        UserError: as `parse_metrics`.
    """
    parsed, _ = parse_metrics(metrics, catalogue, list_length, provided=("exact",))
    if any("exact" in metric.reads for metric in parsed):
        return list(metrics)
    cutoffs = {term.cutoff for metric in parsed for term in metric.terms if term.cutoff is not None}
    return [*metrics, *(f"pr@{cutoff}" for cutoff in sorted(cutoffs or {list_length}))]


def read_exact(
    folder: Path, other: Path, dataset: PreparedDataset, split: str, rows: Sequence[Row], metrics: Sequence[str]
) -> Predictions:
    """Read the most probable lists that belong to another decoder's.

    Args:
        folder: the exact ones.
        other: decode folder of the predictions to measure.
        dataset: that both were made for.
        split: whose rows they answer.
        rows: [U] the rows of `other`.
        metrics: names; those that read exact predictions must not look beyond these.

    Returns:
        U lists, in the order of `rows`.

    Raises:
        UserError: not proven to be those, or made for another model, dataset, split, score; rows left out; too short.
    """
    record = RunFolder(folder).record
    _check_same(folder, record, other, RunFolder(other).record)
    size = int(record["options"]["size"])
    _check_reach(metrics, size, folder)
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
    best, found = _decoder(one), _decoder(two)
    if not best.proven:
        raise UserError(f"{folder} was decoded by {best.name!r}, whose lists need not be the most probable ones.", HINT)
    if found.ranks_by is None:
        params = ", ".join(f"{name}={value}" for name, value in two.get("params", {}).items())
        raise UserError(
            f"{other} was decoded by {found.name!r} ({params}), which ranks by something else than probability.",
            "Decode with --decoder beam, without a length penalty.",
        )
    pairs = {
        "models": (exact.get("inputs", {}).get("model"), measured.get("inputs", {}).get("model")),
        "datasets": (exact.get("inputs", {}).get("data"), measured.get("inputs", {}).get("data")),
        "scores": (best.ranks_by, found.ranks_by),
        **{name: (one.get(key), two.get(key)) for name, key in _ALIKE.items()},
    }
    for name, (left, right) in pairs.items():
        if left != right:
            raise UserError(f"{folder} and {other} are of different {name}: {left!r} and {right!r}.", HINT)


def _decoder(options: Mapping[str, Any]) -> Decoder:
    """The decoder that a run was decoded by, as the run's options record it."""
    decoder: Decoder = create("decoder", options.get("decoder", ""), options.get("params", {}))
    return decoder


_ALIKE = {"splits": "split", "rules on history items (exclude_history)": "exclude_history", "dtypes": "dtype"}


def _check_reach(metrics: Sequence[str], size: int, folder: Path) -> None:
    """Refuse pr@k beyond the end of the exact lists."""
    for name in metrics:
        metric = parse_metric(name, provided=("exact",))
        for term in metric.terms:
            if "exact" in term.metric.reads and term.cutoff is not None and term.cutoff > size:
                raise UserError(
                    f"{term.text} looks at {term.cutoff} positions, and the lists of {folder} have {size}.",
                    f"Use {term.metric.name}@{size} or less, or decode with a larger --size.",
                )
