"""Where predictions come from: written by the command that makes them, read by `eval` and `compare`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from recalign.reading import FileRecord, checked
from recalign.removal import RUN_FILE
from recalign.runs.names import run_name
from recalign.workspace import RunFolder

MAX_SIZE = 1_000_000
"""Items per list; no catalogue has so many that anybody would look at."""
KEY = "lineage"  # in run.json


@dataclass(frozen=True)
class Lineage:
    """What made a folder of predictions.

    Args:
        label: name in tables.
        seed: of the training that they come from, or None where that is not known.
        options: of that training, which tell what belongs to one group in `compare`.
        training_seconds: that it took, or None.
        data: path of the dataset; None: not known.
        split: whose rows are answered.
        size: items per list; None: not known.
        exclude_history: whether items that the user had before were left out; None: not known.
    """

    label: str
    seed: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    training_seconds: float | None = None
    data: str | None = None
    split: str = "test"
    size: int | None = None
    exclude_history: bool | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as run.json holds it."""
        return {**asdict(self), "options": dict(self.options)}


class LineageRecord(FileRecord):
    """What is relied on of a lineage in run.json."""

    label: str
    seed: int | None = None
    options: dict[str, Any] = {}
    training_seconds: float | None = None
    data: str | None = None
    split: str = "test"
    size: Annotated[int, Field(ge=1, le=MAX_SIZE)] | None = None
    exclude_history: bool | None = None


def of_predictions(folder: Path) -> Lineage:
    """Read the lineage of a folder of predictions; of one without a run.json only its name is known.

    Raises:
        UserError: run.json is broken.
    """
    record = RunFolder(folder).record
    if KEY not in record:
        return Lineage(run_name(Path(folder).resolve()))
    told = checked(record[KEY], LineageRecord, f"{folder}/{RUN_FILE}: {KEY}", "Make the predictions again.")
    return Lineage(**{name: value for name, value in told.items() if name in LineageRecord.model_fields})


def of_model(name: str, **facts: Any) -> Lineage:
    """Tell the lineage of predictions by a model.

    Args:
        name: a run folder of sft or align, or any other model.
        **facts: data, split, size, exclude_history.
    """
    path = Path(name)
    record = RunFolder(path).record if path.is_dir() else {}
    if record.get("command") not in ("sft", "align"):
        return Lineage(run_name(path.resolve()) if path.exists() else name, **facts)
    return Lineage(
        run_name(path.resolve()),
        seed=record.get("seed"),
        options=record.get("options", {}),
        training_seconds=record.get("results", {}).get("seconds"),
        **facts,
    )
