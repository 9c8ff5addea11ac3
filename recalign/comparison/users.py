"""What the page's browser of users shows: histories, targets and every system's list, row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recalign.comparison.evaluations import Evaluation
from recalign.comparison.systems import Comparison
from recalign.comparison.trail import predictions_of
from recalign.data.dataset import PreparedDataset
from recalign.errors import UserError
from recalign.evaluation.per_user import metric_names
from recalign.runs.predictions import PREDICTIONS_FILE

if TYPE_CHECKING:
    import polars as pl

HISTORY = 50
"""Items of a history that are shown, the newest ones."""
NO_ITEM = -1


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
    frame = comparison.systems[0].frame.select("data", "row", "user_id")
    keys = frame.rows()
    if len(keys) > limit:
        chosen = np.sort(np.random.default_rng(seed).choice(len(keys), limit, replace=False))
        keys = [keys[place] for place in chosen]
    wanted = {(data, row) for data, row, _ in keys}
    titles, absent = _Titles(), {}
    lists: dict[str, dict[tuple[str, int], list[int]]] = {}
    values: dict[str, dict[tuple[str, int], list[float | None]]] = {}
    models = [system for system in comparison.systems if not system.baseline]
    for system in models:
        lists[system.name], values[system.name] = {}, {}
        for run in reversed(system.runs):  # of several runs for a row the first one's stays
            read = _lists(run, wanted, titles)
            if read is None:
                absent[system.name] = f"the predictions of {run.folder} are gone, or were made again since"
                continue
            lists[system.name].update(read)
            values[system.name].update(_values(run, wanted, metrics))
    shown = [system.name for system in models if lists[system.name]]
    questions = _questions(comparison, keys, titles) if shown else {}
    rows = []
    for data, row, user in keys:
        if (data, row) in questions:
            given = [lists[name].get((data, row)) for name in shown]
            scores = [values[name].get((data, row)) for name in shown]
            rows.append((str(user), row, *questions[data, row], given, scores))
    several = any(len({run.measured_hash for run in system.runs}) < len(system.runs) for system in models)
    return Users(
        tuple(shown), tuple(titles), tuple(metrics), tuple(rows), comparison.systems[0].frame.height, several, absent
    )


def _lists(run: Evaluation, wanted: set[tuple[str, int]], titles: _Titles) -> dict[tuple[str, int], list[int]] | None:
    """Read a run's lists of the wanted rows: (data, row) -> places of titles."""
    import polars as pl

    folder = predictions_of(run)
    if folder is None:
        return None
    try:
        frame = pl.read_parquet(folder / PREDICTIONS_FILE, columns=["row", "titles"])
    except (pl.exceptions.PolarsError, OSError):
        return None
    data = run.measured_hash
    return {
        (data, row): [NO_ITEM if title is None else titles[title] for title in shown]
        for row, shown in frame.rows()
        if (data, row) in wanted
    }


def _values(
    run: Evaluation, wanted: set[tuple[str, int]], metrics: Sequence[str]
) -> dict[tuple[str, int], list[float | None]]:
    """Read a run's figures of the wanted rows, rounded to what the page shows."""
    frame: pl.DataFrame = run.frame
    own = metric_names(frame)
    columns = [frame[name].to_list() if name in own else [None] * frame.height for name in metrics]
    data = run.measured_hash
    return {
        (data, row): [None if value is None else round(value, 4) for value in figures]
        for row, *figures in zip(frame["row"].to_list(), *columns, strict=True)
        if (data, row) in wanted
    }


def _questions(
    comparison: Comparison, keys: Sequence[tuple[str, int, str]], titles: _Titles
) -> dict[tuple[str, int], tuple[list[int], int, list[int], list[float]]]:
    """Look up histories and targets: (data, row) -> newest of the history, number of the others, targets, gains."""
    runs = {run.measured_hash: run for system in comparison.systems for run in reversed(system.runs)}
    found = {}
    for data in dict.fromkeys(key[0] for key in keys):
        try:
            dataset = PreparedDataset(Path(str(runs[data].results["data"]["path"])))
            rows = dataset.rows(str(runs[data].results["split"]))
            names = dataset.catalogue.titles
        except UserError:  # it was moved or removed since; the rest of the page does without
            continue
        if dataset.measured_hash != data:
            continue
        for _, index, user in (key for key in keys if key[0] == data):
            if index < len(rows) and rows[index].user_id == str(user):
                row = rows[index]
                earlier = len(row.earlier) + max(len(row.history) - HISTORY, 0)
                history = [titles[names[item]] for item in row.history[-HISTORY:]]
                targets = [titles[names[item]] for item in row.targets]
                found[data, index] = (history, earlier, targets, [round(float(gain), 3) for gain in row.gains])
    return found
