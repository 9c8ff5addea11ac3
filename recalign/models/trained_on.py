"""Which dataset a model was trained on: noted by the training run, and found again by whoever uses the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recalign.data.dataset import PreparedDataset
from recalign.errors import UserError
from recalign.models.builtin import is_from_scratch
from recalign.models.settings import recorded_settings
from recalign.models.weights import find_model
from recalign.reading import read_object
from recalign.workspace import RunFolder, home

KEY = "dataset"  # in run.json


def noted(dataset: PreparedDataset, seed: int) -> dict[str, Any]:
    """Return what run.json states of a training besides its options: the seed, and where its dataset is."""
    return {"seed": seed, KEY: str(dataset.path.resolve())}


def dataset_of_model(name: str | Path) -> PreparedDataset:
    """Open the dataset that a model was trained on.

    It is looked for where the run says, then as `data` beside the run folder, then as the workspace's `data`: the first
    one with the content that the model's `recalign.json` records. Of a model that recalign did not train, it is the
    workspace's `data`.

    Args:
        name: as `load_policy` takes it.

    Raises:
        UserError: there is no such model; its dataset is gone, or has another content now.
    """
    folder = None if is_from_scratch(name) else find_model(name)
    recorded = recorded_settings(folder)
    if folder is None or not recorded:
        return PreparedDataset(home() / "data")
    said = RunFolder(folder.parent).record.get(KEY)
    places = [*([Path(str(said))] if said else []), folder.parent.parent / "data", home() / "data"]
    wanted = recorded.get("dataset")
    for place in places:
        file = place / "dataset.json"
        if file.is_file() and read_object(file).get("hash") == wanted:
            return PreparedDataset(place)
    where = f"{said}, which is gone or holds another one now" if said else "a dataset that is not in the workspace"
    raise UserError(
        f"{name} was trained on {where} (content {wanted}); its catalogue is needed to name items.",
        "Name it with --data where it lies elsewhere, or prepare it again with the same options.",
    )
