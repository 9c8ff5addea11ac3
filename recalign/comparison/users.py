"""What the page's browser of users shows: histories, targets and every system's list, row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recalign.comparison.datasets import Datasets
from recalign.comparison.evaluations import Evaluation
from recalign.comparison.systems import Comparison
from recalign.comparison.trail import predictions_of
from recalign.errors import UserError
from recalign.evaluation.per_user import metric_names
from recalign.reading import read_parquet
from recalign.runs.predictions import PREDICTIONS_FILE

HISTORY = 50
"""Items of a history that are shown, the newest ones."""
NO_ITEM = -1
Key = tuple[str, int]
"""Hash of what was measured, and the row."""


@dataclass(frozen=True)
class Users:
    """Rows of the comparison with the lists that systems gave.

    Args:
        systems: names of the systems whose lists are shown.
        titles: of all items that occur.
        metrics: names of the metrics that every shown list is scored by.
        rows: user, dataset's place, history, number of earlier items, targets, gains, and of each system its list and
            its values; items are places in `titles`, -1 is text that names no item, None a list that is not there.
        total: rows of the comparison, of which `rows` may be a sample.
        several: whether a system has several runs for a row, of which the first one's list is shown.
        absent: system -> why its lists are not there.
    """

    systems: tuple[str, ...]
    titles: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    total: int
    several: bool
    absent: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """For the page's script."""
        return {"systems": self.systems, "titles": self.titles, "metrics": self.metrics, "rows": self.rows}


class _Titles(dict[str, int]):
    """Title -> its place, in the order in which titles are asked for."""

    def __missing__(self, title: str) -> int:
        self[title] = len(self)
        return self[title]


def gather_users(comparison: Comparison, metrics: Sequence[str], limit: int, seed: int = 0) -> Users:
    """Read what each system recommended to each user.

    Args:
        comparison: whose systems and rows.
        metrics: to score the lists by.
        limit: maximum number of rows; of more, that many are drawn.
        seed: of the drawing.
    """
    keys = comparison.systems[0].frame.select("data", "row", "user_id").rows()
    if len(keys) > limit:
        chosen = np.sort(np.random.default_rng(seed).choice(len(keys), limit, replace=False))
        keys = [keys[place] for place in chosen]
    wanted = {(data, row) for data, row, _ in keys}
    titles, datasets, absent = _Titles(), Datasets(), {}
    lists: dict[str, dict[Key, list[int]]] = {}
    values: dict[str, dict[Key, list[float | None]]] = {}
    models = [system for system in comparison.systems if not system.baseline]
    for system in models:
        lists[system.name], values[system.name] = {}, {}
        for run in reversed(system.runs):  # of several runs for a row the first one's stays
            read = _lists(run, datasets, wanted, titles)
            if read is None:
                absent[system.name] = (
                    f"the predictions or the dataset of {run.folder} are gone, or were made again since"
                )
                continue
            lists[system.name].update(read)
            values[system.name].update(_values(run, wanted, metrics))
    shown = [system.name for system in models if lists[system.name]]
    questions = _questions(comparison, datasets, keys, titles)
    rows = []
    for data, row, user in keys:
        if shown and (data, row) in questions:
            given = [lists[name].get((data, row)) for name in shown]
            scores = [values[name].get((data, row)) for name in shown]
            rows.append((str(user), row, *questions[data, row], given, scores))
    several = any(len({run.measured_hash for run in system.runs}) < len(system.runs) for system in models)
    total = comparison.systems[0].frame.height
    return Users(tuple(shown), tuple(titles), tuple(metrics), tuple(rows), total, several, absent)


def _lists(run: Evaluation, datasets: Datasets, wanted: set[Key], titles: _Titles) -> dict[Key, list[int]] | None:
    """Read a run's lists of the wanted rows, as places of titles; None where they, or their dataset, are gone."""
    folder, dataset = predictions_of(run), datasets.of(run)
    if folder is None or dataset is None:
        return None
    frame = read_parquet(folder / PREDICTIONS_FILE, "Decode again.")
    names, data = dataset.catalogue.titles, run.measured_hash
    return {
        (data, row): [NO_ITEM if item < 0 else titles[names[item]] for item in items]
        for row, items in frame.select("row", "items").rows()
        if (data, row) in wanted
    }


def _values(run: Evaluation, wanted: set[Key], metrics: Sequence[str]) -> dict[Key, list[float | None]]:
    """Read a run's figures of the wanted rows, rounded to what the page shows."""
    frame = run.frame
    own = metric_names(frame)
    columns = [frame[name].to_list() if name in own else [None] * frame.height for name in metrics]
    data = run.measured_hash
    return {
        (data, row): [None if value is None else round(value, 4) for value in figures]
        for row, *figures in zip(frame["row"].to_list(), *columns, strict=True)
        if (data, row) in wanted
    }


def _questions(
    comparison: Comparison, datasets: Datasets, keys: Sequence[tuple[str, int, str]], titles: _Titles
) -> dict[Key, tuple[list[int], int, list[int], list[float]]]:
    """Look up histories and targets: newest of the history, number of the others, targets, gains."""
    found = {}
    runs = [run for system in comparison.systems for run in system.runs]
    for data in dict.fromkeys(key[0] for key in keys):
        run = next((run for run in runs if run.measured_hash == data and datasets.of(run)), None)
        dataset = datasets.of(run) if run else None
        if run is None or dataset is None:
            continue
        names = dataset.catalogue.titles
        try:
            rows = dataset.rows(str(run.results["split"]))
        except UserError:
            continue
        for _, index, _ in (key for key in keys if key[0] == data and key[1] < len(rows)):
            row = rows[index]
            history = [titles[names[item]] for item in row.history[-HISTORY:]]
            targets = [titles[names[item]] for item in row.targets]
            earlier = len(row.earlier) + max(len(row.history) - HISTORY, 0)
            found[data, index] = (history, earlier, targets, [round(float(gain), 3) for gain in row.gains])
    return found
