"""What a trained model's folder records of its training, and which datasets it fits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from recalign import console
from recalign.data.dataset import PreparedDataset
from recalign.errors import UserError
from recalign.models.hardware import Quantization
from recalign.reading import FileRecord, read_record
from recalign.text.chat_templates import Scalar

SETTINGS_FILE = "recalign.json"


class BackboneSettings(FileRecord):
    """What is relied on of a backbone in recalign.json."""

    name: str
    params: dict[str, Any]


class Settings(FileRecord):
    """What is relied on in recalign.json."""

    base_model: str
    catalogue: str
    identifier: str
    titles: str
    dataset: str | None = None
    measured: str | None = None
    task: str | None = None
    template: str | None = None
    template_source: str | None = None
    template_variables: dict[str, Scalar] = {}
    template_date: str | None = None
    max_length: int | None = Field(None, ge=1)
    backbone: BackboneSettings | None = None
    quantization: Quantization | None = None


def recorded_settings(folder: Path | None) -> dict[str, Any]:
    """Return what a model's folder records of its training in recalign.json; {} where recalign did not train it.

    Raises:
        UserError: the file is there and lacks what it should say, such as the catalogue.
    """
    if folder is None or not (folder / SETTINGS_FILE).is_file():
        return {}
    return read_record(folder / SETTINGS_FILE, Settings, "Train the model again, or delete this file to start from it.")


def is_transfer(recorded: Mapping[str, Any], dataset: PreparedDataset) -> bool:
    """Tell whether a model was trained on another catalogue than a dataset has.

    Args:
        recorded: its `recorded_settings`; those of a model that was not trained here say nothing.
        dataset: to be decoded.
    """
    return bool(recorded) and recorded.get("catalogue") != dataset.catalogue.fingerprint


def check_recorded(
    recorded: Mapping[str, Any], dataset: PreparedDataset, name: str | Path, *, transfer: bool = False
) -> None:
    """Hold a dataset against what a model was trained on.

    Args:
        recorded: its `recorded_settings`.
        dataset: to be trained on or decoded.
        name: of the model, for error texts.
        transfer: allow another catalogue, where both write titles as text.

    Raises:
        UserError: another catalogue or task, or other identifiers.
    """
    if not recorded:
        return
    if is_transfer(recorded, dataset):
        _check_transfer(recorded, dataset, name, transfer)
        return
    if recorded.get("identifier") != dataset.identifier:
        raise UserError(
            f"{name} writes items as '{recorded.get('identifier')}', {dataset.path} as '{dataset.identifier}'.",
            "Prepare the dataset with the model's --identifier.",
        )
    if recorded.get("dataset") not in (None, dataset.hash) and recorded.get("measured") != dataset.measured_hash:
        console.warn(
            f"{name} was trained on another preparation of these items than {dataset.path}. Where the two are split "
            "differently, it has been trained on rows that are held out here."
        )


def _check_transfer(recorded: Mapping[str, Any], dataset: PreparedDataset, name: str | Path, allowed: bool) -> None:
    """Refuse another catalogue, unless the model writes titles as text, and is asked what it was trained to answer."""
    other = f"{name} was trained on another catalogue than that of {dataset.path}"
    if not allowed:
        hint = "Name the dataset that it was trained on with --data, or train a model on this one."
        raise UserError(f"{other}.", hint)
    if recorded.get("identifier") != "title" or dataset.identifier != "title":
        kinds = f"it writes items as '{recorded.get('identifier')}', the dataset as '{dataset.identifier}'"
        hint = "Only titles mean the same in two catalogues: train and prepare with --identifier title."
        raise UserError(f"{other}, and {kinds}.", hint)
    if recorded.get("task") not in (None, dataset.task):
        tasks = f"for the task '{recorded.get('task')}', and the dataset asks for '{dataset.task}'"
        raise UserError(f"{other}, {tasks}.", "Prepare it with the model's --task.")
    console.say(f"{other}: it transfers what it learnt there, title by title.")
