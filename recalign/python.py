"""Recalign from Python: datasets, models, predictions, plugins, rewards, decoding, and every command as a function.

`docs/python.md` is a tour. Everything here raises `recalign.errors.UserError` for what a user can mend.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recalign import console
from recalign.workflow.signatures import CommandSignature, command_function, signature_of

if TYPE_CHECKING:
    import numpy as np

    from recalign.api import Catalogue, Predictions, Row
    from recalign.data.dataset import PreparedDataset
    from recalign.decoding.engine import PolicyEngine
    from recalign.decoding.serving import ListService
    from recalign.metrics.expression import MetricExpression

HERE = ("out", "resume", "overwrite")
"""Options that a recipe decides, and a Python program states."""


# ------------------------------------------------------------ data, models, predictions


def load_dataset(folder: str | Path) -> PreparedDataset:
    """Open a prepared dataset: `dataset.catalogue`, `dataset.rows("test")`, `dataset.interactions()`.

    Args:
        folder: that `recalign prepare` wrote.

    Raises:
        UserError: there is none, or it is broken.
    """
    from recalign.data.dataset import PreparedDataset

    return PreparedDataset(Path(folder))


def load_model(
    name: str | Path,
    dataset: PreparedDataset,
    *,
    seed: int = 0,
    token_budget: int = 32768,
    dtype: str = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
) -> PolicyEngine:
    """Load a model and bind it to a dataset's catalogue: an engine that samples, searches, and asks about titles.

    Args:
        name: a run folder of sft or align, a Hugging Face folder or hub name, a .gguf file, or `builtin:tiny`.
        dataset: whose catalogue it writes.
        seed: of new weights, and of what decoders sample with.
        token_budget: maximum number of prompt and list tokens in memory at once.
        dtype: auto, float32 or bfloat16.
        device: auto, cpu, cuda or mps.
        trust_remote_code: run code that comes with the model.

    Raises:
        UserError: no such model or device, or a model of another catalogue.
    """
    from recalign.decoding.engine import PolicyEngine
    from recalign.models.hardware import Hardware
    from recalign.models.policy import load_policy

    policy = load_policy(
        str(name),
        dataset,
        seed=seed,
        dtype=dtype,  # type: ignore[arg-type]
        trust_remote_code=trust_remote_code,
        hardware=Hardware(device, None, None),  # type: ignore[arg-type]
    )
    exclude = dataset.excludes_history()
    return PolicyEngine(policy, dataset.catalogue, exclude_history=exclude, token_budget=token_budget, seed=seed)


def load_predictions(
    folder: str | Path, dataset: PreparedDataset | None = None
) -> tuple[Predictions, list[Row], PreparedDataset]:
    """Read what `decode` or `baseline` wrote.

    Args:
        folder: a decode folder, or a model run with one.
        dataset: that it was made from; by default the one that its record names.

    Returns:
        U lists, the rows that they answer, and the dataset.

    Raises:
        UserError: there are no predictions, or they belong to another dataset.
    """
    from recalign.runs.lineage import of_predictions
    from recalign.runs.predictions import check_made_for, find_predictions, read_predictions
    from recalign.workspace import RunFolder, home

    found = find_predictions(Path(folder))
    lineage = of_predictions(found)
    opened = dataset if dataset is not None else load_dataset(lineage.data or home() / "data")
    check_made_for(opened, RunFolder(found).record, found)
    return (*read_predictions(found, opened, lineage.split, lineage.size or 1, rationales=True), opened)


# ------------------------------------------------------------ plugins, rewards, decoding


def create_plugin(kind: str, name: str, **params: Any) -> Any:
    """Make a plugin by the name that users type.

    Args:
        kind: a kind of plugin, by any of its words, such as objective, metric or decoder.
        name: of the plugin, such as blade, ndcg or beam.
        **params: its parameters; the others have their defaults.

    Raises:
        UserError: no such kind, name or parameter (with did-you-mean), or a value that is out of bounds.
    """
    from recalign.plugins.kinds import find_kind
    from recalign.plugins.registry import create

    return create(find_kind(kind).name, name, params)


def parse_reward(text: str, catalogue: Catalogue) -> MetricExpression:
    """Read a reward such as `ndcg@5 - 0.5*mgu` and bind it to a catalogue.

    Args:
        text: a metric, or a weighted sum of metrics that have a value per list.
        catalogue: of the dataset.

    Raises:
        UserError: an unknown metric, a form that cannot be read, or something that the catalogue lacks.
    """
    from recalign.metrics.expression import parse_expression

    return parse_expression(text).bind(catalogue)


def score(
    reward: MetricExpression, items: np.ndarray, rows: Sequence[Row], lengths: np.ndarray | None = None
) -> np.ndarray:
    """Score lists by a reward, as training, validation and `eval` do.

    Args:
        reward: that `parse_reward` returned.
        items: [N, K] item indices, best first; -1 where there is no item.
        rows: [N] what each list answers.
        lengths: [N] positions of each list; by default up to its last item.

    Returns:
        float64 [N].

    Raises:
        UserError: arrays that do not fit, items that the catalogue lacks, or a metric that fails.
    """
    import numpy as np

    from recalign.api import ListBatch
    from recalign.errors import UserError

    items = np.asarray(items, dtype=np.int64)
    if items.ndim != 2 or len(items) != len(rows):
        raise UserError(f"items has the shape {items.shape} for {len(rows)} rows.", "Hand over [rows, positions].")
    size = len(reward.terms[0].metric.catalogue)
    strange = items[(items < -1) | (items >= size)]
    if len(strange):
        raise UserError(f"items names item {strange[0]}, and the catalogue has {size} items.", "Items count from 0.")
    if lengths is None:
        lengths = ((items >= 0) * np.arange(1, items.shape[1] + 1)).max(axis=1, initial=0)
    return reward.score(ListBatch(items, np.asarray(lengths), list(rows), np.arange(len(rows))))


def decode_rows(
    engine: PolicyEngine, rows: Sequence[Row], size: int = 10, decoder: str | None = None, **params: Any
) -> Predictions:
    """Decode lists for rows, in memory.

    Args:
        engine: that `load_model` returned.
        rows: U rows, such as `dataset.rows("test")[:8]`.
        size: K, items per list.
        decoder: its name; by default the task's.
        **params: the decoder's parameters.

    Raises:
        UserError: an unknown decoder or parameter, one that does not serve the task, or a size that it cannot have.
    """
    from recalign.decoding import batches
    from recalign.tasks import find_task

    task = find_task(engine.task)
    chosen = create_plugin("decoder", decoder or task.default_decoder(engine.policy.module_names), **params)
    batches.check_task(chosen, task)
    return batches.decode_rows(engine, chosen, rows, task.checked_size(size, engine.list_length, len(engine.catalogue)))


def load_service(
    model: str | Path,
    data: str | Path | None = None,
    *,
    decoder: str | None = None,
    exclude_history: bool | None = None,
    allow_repeats: bool = False,
    seed: int = 0,
    dtype: str = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
    **params: Any,
) -> ListService:
    """Load a model once, to recommend to one person after another: `service.recommend(["Alien (1979)"], size=5)`.

    Args:
        model: a run folder of sft or align, or another model that `load_model` takes.
        data: prepared dataset whose items are recommended; by default the one that the model was trained on.
        decoder: its name; by default the task's.
        exclude_history: whether items of the history are never recommended; by default as the dataset was prepared.
        allow_repeats: whether a history may name an item more than once.
        seed: of what decoders sample with, and of new weights.
        dtype: auto, float32 or bfloat16.
        device: auto, cpu, cuda or mps.
        trust_remote_code: run code that comes with the model.
        **params: the decoder's parameters.

    Raises:
        UserError: no such model, dataset or decoder, or those that do not fit each other.
    """
    from recalign.decoding import serving
    from recalign.models.hardware import Hardware

    service = serving.load_service(
        model,
        data,
        decoder=decoder,
        params=params,
        exclude_history="auto" if exclude_history is None else "yes" if exclude_history else "no",
        allow_repeats=allow_repeats,
        seed=seed,
        dtype=dtype,  # type: ignore[arg-type]
        hardware=Hardware(device, None, None),  # type: ignore[arg-type]
        trust_remote_code=trust_remote_code,
    )
    return service.load()


# ------------------------------------------------------------ commands


def run_command(name: str, *arguments: Any, **options: Any) -> dict[str, Any]:
    """Run a command of recalign in this process, and return the object that `--json` prints.

    Options are named as on the command line, with underscores; a plugin's parameters are a table, `{"tau": 0.3}`, named
    `params`. Types, bounds and choices are checked as on the command line, and runs are resumed and reused alike.

    Args:
        name: of the command, such as sft.
        *arguments: what stands without a name on the command line, such as the runs of `compare`.
        **options: the others; `quiet=True` for no bars, remarks and tables.

    Raises:
        UserError: whatever the command line would refuse.
    """
    signature, where = signature_of(name), f"{name}()"
    quiet = options.pop("quiet", False)
    stated = {key: options.pop(key) for key in HERE if key in options and signature.takes(key)}
    values = {**_positional(signature, arguments), **{key.replace("_", "-"): value for key, value in options.items()}}
    spelt = signature.arguments({key: _plain(value) for key, value in values.items() if value is not None}, where)
    out = stated.pop("out", None)
    spelt += [f"--out={out}"] if out is not None else []
    spelt += [f"--{key}" for key, value in stated.items() if value]
    parsed = signature.parse(spelt, where)
    with console.silence() if quiet else contextlib.nullcontext():
        return signature.function(**parsed)


def _positional(signature: CommandSignature, arguments: Sequence[Any]) -> dict[str, Any]:
    """Name the arguments that stand without a name."""
    from recalign.errors import UserError

    names = signature.positional
    if len(names) == 1 and signature.is_list(names[0]):
        return {names[0]: list(arguments)} if arguments else {}
    if len(arguments) > len(names):
        takes = f"{len(names)}: {', '.join(names)}" if names else "none"
        raise UserError(f"{signature.name}() has {len(arguments)} arguments without a name.", f"It takes {takes}.")
    return dict(zip(names, arguments, strict=False))


def _plain(value: Any) -> Any:
    """A value as a recipe has it: paths are texts, tuples lists."""
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return str(value) if isinstance(value, Path) else value


def _command(name: str) -> Callable[..., dict[str, Any]]:
    def call(*arguments: Any, **options: Any) -> dict[str, Any]:
        return run_command(name, *arguments, **options)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = command_function(name).__doc__
    return call


prepare = _command("prepare")
rationales = _command("rationales")
sft = _command("sft")
align = _command("align")
export = _command("export")
recommend = _command("recommend")
decode = _command("decode")
baseline = _command("baseline")
evaluate = _command("eval")
explain = _command("explain")
compare = _command("compare")
run = _command("run")
