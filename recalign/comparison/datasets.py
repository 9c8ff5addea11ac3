"""The datasets that runs were evaluated on, opened once each."""

from __future__ import annotations

from pathlib import Path

from recalign.comparison.evaluations import Evaluation
from recalign.data.dataset import PreparedDataset
from recalign.errors import UserError


class Datasets(dict[str, "PreparedDataset | None"]):
    """Path -> the dataset there, opened once; None where it is gone or damaged."""

    def __missing__(self, path: str) -> PreparedDataset | None:
        try:
            dataset = PreparedDataset(Path(path))
            self[path] = dataset if len(dataset.catalogue) else None
        except UserError:  # the rest of the page does without
            self[path] = None
        return self[path]

    def of(self, run: Evaluation) -> PreparedDataset | None:
        """Return the dataset that a run was evaluated on, if it is still the same."""
        dataset = self[str(run.results["data"].get("path"))]
        return dataset if dataset is not None and dataset.hash == run.data_hash else None
