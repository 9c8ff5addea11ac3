"""Predictions on disk: what `decode` writes and `eval` reads, checked against the dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import numpy as np

from recalign.api import INVALID, Catalogue, Predictions, Row
from recalign.data.parquet import write_parquet
from recalign.errors import UserError
from recalign.reading import read_parquet, reading
from recalign.variations import KINDS, VARIATIONS
from recalign.workspace import RunFolder, atomic, home

if TYPE_CHECKING:
    import polars as pl

    from recalign.data.dataset import PreparedDataset

PREDICTIONS_FILE = "predictions.parquet"
READ_COLUMNS = ("row", "user_id", "items", "scores")


def write_predictions(folder: Path, predictions: Predictions, rows: Sequence[Row], catalogue: Catalogue) -> None:
    """Write `predictions.parquet`: row, user_id, and items, scores, item_ids and titles as lists, one row a list.

    A list holds its own positions only; where the text is no item, the item is -1 and id and title are null. Decoders
    that write a text about each item add the column `rationales`, a list too.

    Raises:
        UserError: the disk is full.
    """
    import polars as pl

    lists = [items[:end].tolist() for items, end in zip(predictions.items, predictions.lengths, strict=True)]
    scores = [values[:end].tolist() for values, end in zip(predictions.scores, predictions.lengths, strict=True)]
    frame = pl.DataFrame(
        {
            "row": [row.index for row in rows],
            "user_id": [row.user_id for row in rows],
            "items": lists,
            "scores": scores,
            "item_ids": [[None if i == INVALID else catalogue.item_ids[i] for i in items] for items in lists],
            "titles": [[None if i == INVALID else catalogue.titles[i] for i in items] for items in lists],
        },
        schema={
            "row": pl.Int64,
            "user_id": pl.String,
            "items": pl.List(pl.Int64),
            "scores": pl.List(pl.Float64),
            "item_ids": pl.List(pl.String),
            "titles": pl.List(pl.String),
        },
    )
    if predictions.rationales is not None:
        pairs = zip(predictions.rationales, predictions.lengths, strict=True)
        texts = [each[:end].tolist() for each, end in pairs]
        frame = frame.with_columns(rationales=pl.Series(texts, dtype=pl.List(pl.String)))
    with atomic(Path(folder) / PREDICTIONS_FILE) as temporary:
        write_parquet(temporary, frame)


def read_predictions(
    folder: Path, dataset: PreparedDataset, split: str, size: int = 1, *, rationales: bool = False
) -> tuple[Predictions, list[Row]]:
    """Read what `decode` wrote, and the rows that it answers.

    Args:
        folder: holds `predictions.parquet`.
        dataset: that the predictions were made for.
        split: whose rows they answer.
        size: K, the positions that a list could have had; the longest list's where that is more.
        rationales: read the texts too, where the file has some.

    Returns:
        U lists and their rows, in the order of the file.

    Raises:
        UserError: no such file, missing columns, no rows, a row answered twice, rows, users or items that are not those
            of the dataset.
    """
    file = Path(folder) / PREDICTIONS_FILE
    if not file.is_file():
        raise UserError(f"{folder} holds no {PREDICTIONS_FILE}.", "Make predictions with `recalign decode`.")
    frame = read_parquet(file, "Decode again.")
    missing = [name for name in READ_COLUMNS if name not in frame.columns]
    if missing:
        raise UserError(
            f"{file} lacks the column '{missing[0]}' (it has {', '.join(frame.columns)}).",
            f"It must have {', '.join(READ_COLUMNS)}.",
        )
    if not frame.height:
        raise UserError(f"{file} is empty: no row was decoded.", "Decode again.")
    frame = _typed(frame, file)
    rows = _matching_rows(frame, dataset, split, file)
    lists = _padded(frame, size, len(dataset.catalogue), split, file)
    if not rationales or "rationales" not in frame.columns:
        return lists, rows
    return replace(lists, rationales=_padded_texts(frame, lists, file)), rows


def find_variations(folder: Path) -> list[tuple[str, int, Path]]:
    """Find the predictions for varied rows of a decode folder: variation, value, folder, in the variations' order."""
    files = Path(folder, VARIATIONS).glob(f"*-*/{PREDICTIONS_FILE}")
    named = [(*file.parent.name.rpartition("-")[::2], file.parent) for file in files]
    known = [(name, int(value), where) for name, value, where in named if name in KINDS and value.isdecimal()]
    return sorted(known, key=lambda each: (list(KINDS).index(each[0]), each[1]))


def _typed(frame: pl.DataFrame, file: Path) -> pl.DataFrame:
    """The columns that are read, in the types that `write_predictions` gave them, without gaps; texts if there are."""
    import polars as pl

    types: dict[str, Any] = {
        "row": pl.Int64,
        "user_id": pl.String,
        "items": pl.List(pl.Int64),
        "scores": pl.List(pl.Float64),
    }
    types |= {"rationales": pl.List(pl.String)} if "rationales" in frame.columns else {}
    with reading(file, "Decode again.", "holds other columns than predictions have"):
        frame = frame.select(pl.col(name).cast(dtype, strict=True) for name, dtype in types.items())
        for name in ("row", "user_id"):
            if frame[name].null_count():
                raise ValueError(f"there are rows without '{name}'")
        uneven = frame.filter(pl.col("items").list.len() != pl.col("scores").list.len())
        gaps = frame.filter(pl.col("items").list.eval(pl.element().is_null()).list.any())
        if uneven.height or gaps.height:
            raise ValueError("there are lists without a score for each item, or without an item for each place")
    return frame


def _matching_rows(frame: pl.DataFrame, dataset: PreparedDataset, split: str, file: Path) -> list[Row]:
    """Look up the rows that the predictions answer, and hold their users against the dataset's."""
    every = dataset.rows(split)
    indices = frame["row"].to_list()
    hint = "They were made from another dataset; name the right one with --data, or decode again."
    if len(set(indices)) < len(indices):
        twice = next(index for place, index in enumerate(indices) if index in indices[:place])
        raise UserError(f"{file} answers row {twice} of the split '{split}' twice.", "Decode again.")
    if max(indices) >= len(every) or min(indices) < 0:
        raise UserError(
            f"{file} answers row {max(indices)} of '{split}', and {dataset.path} has {len(every)} rows there.", hint
        )
    rows = [every[index] for index in indices]
    for row, user in zip(rows, frame["user_id"].cast(str).to_list(), strict=True):
        if row.user_id != user:
            raise UserError(
                f"Row {row.index} of '{split}' is user '{row.user_id}' in {dataset.path}, and '{user}' in {file}.", hint
            )
    return rows


def _padded(frame: pl.DataFrame, size: int, catalogue_size: int, split: str, file: Path) -> Predictions:
    """Pad ragged lists to [U, K]."""
    empty = frame.filter(frame["items"].is_null() | frame["scores"].is_null())
    if empty.height:
        raise UserError(f"In {file}, row {empty['row'][0]} of '{split}' has no list.", "Decode again.")
    lists: list[list[int]] = frame["items"].to_list()
    scores: list[list[float]] = frame["scores"].to_list()
    width = max(size, *(len(items) for items in lists))
    padded = np.full((len(lists), width), INVALID, dtype=np.int64)
    values = np.zeros((len(lists), width))
    for place, (items, marks) in enumerate(zip(lists, scores, strict=True)):
        padded[place, : len(items)] = items
        values[place, : len(marks)] = marks
    strange = padded[(padded < INVALID) | (padded >= catalogue_size)]
    if len(strange):
        raise UserError(
            f"{file} names item {strange[0]}, and the dataset has {catalogue_size} items.",
            "They were made from another dataset; name the right one with --data, or decode again.",
        )
    return Predictions(padded, values, np.array([len(items) for items in lists]))


def _padded_texts(frame: pl.DataFrame, lists: Predictions, file: Path) -> np.ndarray:
    """Pad ragged lists of texts to [U, K], as objects: texts differ much in length."""
    padded = np.full(lists.items.shape, "", dtype=object)
    for place, (texts, length) in enumerate(zip(frame["rationales"].to_list(), lists.lengths, strict=True)):
        if texts is None or len(texts) != length:
            raise UserError(
                f"In {file}, row {frame['row'][place]} has {len(texts or ())} rationales for {length} items.",
                "Decode again.",
            )
        padded[place, :length] = ["" if text is None else text for text in texts]
    return padded


def described_list(predictions: Predictions, place: int, catalogue: Catalogue) -> list[dict[str, Any]]:
    """Describe one list, best first: rank (from 1), item, item_id, title, genres, score and rationale of each position.

    Args:
        predictions: U lists.
        place: which of them.
        catalogue: the items.
    """
    items = predictions.items[place, : int(predictions.lengths[place])].tolist()
    texts = predictions.rationales
    return [
        {
            "rank": rank,
            **catalogue.describe(item),
            "score": float(predictions.scores[place, rank - 1]),
            "rationale": None if texts is None else str(texts[place, rank - 1]),
        }
        for rank, item in enumerate(items, 1)
    ]


def check_made_for(dataset: PreparedDataset, record: dict[str, Any], folder: Path) -> None:
    """Refuse predictions that were made for another dataset.

    Args:
        dataset: that they are about to be held against.
        record: run.json of their folder.
        folder: for the error text.

    Raises:
        UserError: run.json names another one.
    """
    inputs = record.get("inputs", {})
    made_for = inputs.get("data")
    if made_for is not None and made_for != dataset.hash:
        raise UserError(
            f"{folder} holds predictions for another dataset ({made_for}) than {dataset.path} ({dataset.hash}).",
            "Name the dataset that they were made for with --data, or decode again.",
        )


def whole_ones(folders: Sequence[Path]) -> list[Path]:
    """Leave out decode folders that answer some rows only (`--limit`, `--user`), where others answer all."""

    def answers_all(folder: Path) -> bool:
        options = RunFolder(folder).record.get("options", {})
        return options.get("limit") is None and options.get("user") is None

    return [folder for folder in folders if answers_all(folder)] or list(folders)


def find_predictions(path: Path | None) -> Path:
    """Find a decode folder: the one given, the only one of a model run, or the newest of the workspace.

    Raises:
        UserError: there is none, or a model run has several.
    """
    if path is None:
        every = (file for file in home().rglob(PREDICTIONS_FILE) if file.parent.parent.name != VARIATIONS)
        found = sorted(every, key=lambda file: file.stat().st_mtime)
        if not found:
            raise UserError(f"The workspace {home()} holds no predictions.", "Make some with `recalign decode`.")
        return found[-1].parent
    if not Path(path).is_dir():
        raise UserError(f"{path} is no folder.", "Name a decode folder, or a model run with one.")
    if (path / PREDICTIONS_FILE).is_file():
        return path
    inside = whole_ones(sorted(file.parent for file in path.glob(f"*/{PREDICTIONS_FILE}")))
    if not inside:
        made = f"recalign decode --model {quote(str(path))}"
        raise UserError(f"{path} holds no predictions.", f"Make some with `{made}`.")
    if len(inside) > 1:
        names = ", ".join(str(folder) for folder in inside)
        raise UserError(f"{path} holds several predictions: {names}.", "Name one of them.")
    return inside[0]
