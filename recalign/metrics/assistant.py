"""assistant@k: what a conventional recommender, such as SASRec, thinks of the list's items."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recalign.api import Catalogue, Field, ListBatch, Metric, Params, UserError, cut_lists, distinct_rows, hookimpl


class AssistantParams(Params):
    """Parameters of `assistant`."""

    run: str = Field("", description="folder that `recalign baseline` wrote")


class AssistantScore(Metric):
    """Mean over positions of the recommender's score of the item, standardised over the catalogue for each row.

    Copies and text that is no item count as the row's lowest score. Differs from ReRe, which takes the scores as they
    are: its advantages are standardised within the group anyway.
    """

    Params = AssistantParams
    paper = "ReRe, collaborative reward (Tan et al., 2025)"
    reads = frozenset({"history"})

    def bind(self, catalogue: Catalogue, cutoff: int | None = None) -> None:
        """Attach the catalogue and load the recommender.

        Raises:
            UserError: no run is named, or it does not fit the catalogue.
        """
        from recalign.recommenders.assistants import load_assistant

        super().bind(catalogue, cutoff)
        if not self.params.run:
            raise UserError(
                "The metric assistant needs the run of a conventional recommender.",
                "Make one with `recalign baseline sasrec --out runs/sasrec`, then write assistant(run='runs/sasrec').",
            )
        self.assistant = load_assistant(Path(self.params.run), catalogue)

    def score(self, lists: ListBatch) -> np.ndarray:
        """Return the values of N lists: float64 [N]."""
        heads = cut_lists(lists, self.cutoff)
        rows, index = distinct_rows(lists.rows)
        scores = standardise(self.assistant.scores(rows))  # [U, I]
        lowest = scores.min(axis=1)[index, None]  # [N, 1]
        values = np.where(heads.counted, scores[index[:, None], heads.items], lowest)
        inside = np.arange(values.shape[1]) < heads.lengths[:, None]
        empty = lowest[:, 0]
        return np.where(heads.lengths > 0, (values * inside).sum(axis=1) / np.maximum(heads.lengths, 1), empty)


def standardise(scores: np.ndarray) -> np.ndarray:
    """Give each row of scores [U, I] mean 0 and standard deviation 1, whatever its scale; 0 where all are equal."""
    alike = scores.max(axis=1, keepdims=True) == scores.min(axis=1, keepdims=True)
    scores = scores / np.where(alike, 1.0, np.abs(scores).max(axis=1, keepdims=True))  # squares may underflow
    centred = scores - scores.mean(axis=1, keepdims=True)
    return np.where(alike, 0.0, centred / np.where(alike, 1.0, scores.std(axis=1, keepdims=True)))


@hookimpl
def recalign_metric() -> type[Metric]:
    """Return the plugin class to recalign."""
    return AssistantScore
