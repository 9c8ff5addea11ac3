"""What a step would refuse once those before it have run, told before anything runs.

A plan knows the options of every step, not its results. From them follow the task, the length of lists, and with those
which metrics can be measured; a misspelt one is told before the first training and not after the last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recalign.metrics.expression import check_cutoffs, parse_expression, parse_metric
from recalign.params import parse_assignments
from recalign.plugins import registry
from recalign.tasks import find_task

if TYPE_CHECKING:
    from recalign.tasks import Task


@dataclass(frozen=True)
class Made:
    """What a step makes, as far as its options tell.

    Args:
        task: of the dataset that it makes, trains on or answers.
        list_length: K, titles of a response.
        size: positions of the lists that it writes; None: it writes none.
    """

    task: Task
    list_length: int
    size: int | None = None


def foresee(command: str, options: Mapping[str, Any], made: Mapping[Path, Made]) -> Made | None:
    """Check one step against those before it.

    Args:
        command: its name.
        options: the arguments of the command's function.
        made: of the steps before it, by their folders.

    Returns:
        What it makes; None where that does not follow from what is known.

    Raises:
        UserError: what the step itself would say.
    """
    check = _CHECKS.get(command)
    return check(options, made) if check else None


def _prepare(options: Mapping[str, Any], made: Mapping[Path, Made]) -> Made | None:
    from recalign.preparation.pipeline import settle
    from recalign.preparation.prepare_options import PrepareOptions

    name, path = options.get("source"), options.get("path")
    if name is None or (path is not None and not path.exists()):
        return None  # only its files tell the source, and what the source suggests
    given = {field: options.get(field) for field in PrepareOptions.model_fields}
    meta = {} if options.get("meta") is None else {"meta": str(options.get("meta"))}
    source = registry.create("source", name, {**_params(options), **meta})
    settled = settle(source, path, given)  # type: ignore[arg-type]
    return Made(find_task(settled.task), settled.list_length or 1)


def _sft(options: Mapping[str, Any], made: Mapping[Path, Made]) -> Made | None:
    data, metric = _of(options.get("data"), made), options.get("metric")
    if metric and metric != "none":
        expression = parse_expression(metric)
        if data is not None:
            check_cutoffs(expression, data.task.list_size(data.list_length))
    return data


def _align(options: Mapping[str, Any], made: Mapping[Path, Made]) -> Made | None:
    data, name, reward = _of(options.get("data"), made), options.get("objective"), options.get("reward")
    if data is not None and name and reward:
        family = registry.find("objective", name).family  # type: ignore[attr-defined]
        samples = family in ("rollout", "rank")  # others are rewarded for what validation decodes
        length = data.list_length if samples else data.task.list_size(data.list_length)
        check_cutoffs(parse_expression(reward), length)
    return data


def _decode(options: Mapping[str, Any], made: Mapping[Path, Made]) -> Made | None:
    data = _of(options.get("data"), made)
    if data is None:
        return None
    model, size = _of(options.get("model"), made) or data, options.get("size") or data.task.list_size(data.list_length)
    decoder = options.get("decoder") or data.task.default_decoder()
    if decoder in data.task.decoders:
        data.task.writable_length(model.list_length, size, decoder)
    return replace(data, size=size)


def _baseline(options: Mapping[str, Any], made: Mapping[Path, Made]) -> Made | None:
    data = _of(options.get("data"), made)
    return data and replace(data, size=options.get("size") or data.task.list_size(data.list_length))


def _eval(options: Mapping[str, Any], made: Mapping[Path, Made]) -> Made | None:
    from recalign.comparison.analyses.partitions import find_partitions
    from recalign.evaluation.per_user import split_metrics

    lists = _of(options.get("predictions"), made)
    find_partitions(options.get("analyses"))
    for name in split_metrics(options.get("metrics") or ""):
        metric = parse_metric(name, ("exact",) if options.get("exact") else ())
        if lists is not None and lists.size is not None:
            check_cutoffs(metric, lists.size)
    for name in split_metrics(options.get("recommenders") or ""):
        registry.find("recommender", name)
    return lists


def _compare(options: Mapping[str, Any], made: Mapping[Path, Made]) -> None:
    from recalign.comparison.analyses.partitions import find_partitions
    from recalign.comparison.conditions import Condition
    from recalign.evaluation.per_user import split_metrics

    find_partitions(options.get("analyses"))
    conditions = [Condition.parse(text) for text in options.get("fail_if") or ()]
    for name in [*split_metrics(options.get("metrics") or ""), *(condition.metric for condition in conditions)]:
        parse_metric(name, ("exact",))


_CHECKS: dict[str, Callable[[Mapping[str, Any], Mapping[Path, Made]], Made | None]] = {
    "prepare": _prepare,
    "sft": _sft,
    "align": _align,
    "decode": _decode,
    "baseline": _baseline,
    "eval": _eval,
    "compare": _compare,
}


def _of(path: Path | str | None, made: Mapping[Path, Made]) -> Made | None:
    """What the step made in whose folder a path lies."""
    if path is None:
        return None
    return next((made[folder] for folder in (Path(path), *Path(path).parents) if folder in made), None)


def _params(options: Mapping[str, Any]) -> dict[str, Any]:
    return parse_assignments(options.get("param") or ())
