"""What `--json` prints, command by command: one versioned model each, from which JSON Schema and docs follow.

A version's fields stay; a new field is no new version, so readers leave out what they do not know. A field that goes,
or changes its meaning, makes a new version.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

VERSION = 1


class Printed(BaseModel):
    """Base of all: fields that are not named here may be added at any time."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class Mean(Printed):
    """A mean over rows with its 95% bootstrap interval over users."""

    mean: float | None = Field(description="mean over the rows that have a value; null where none has")
    low: float | None = Field(description="lower end of the interval")
    high: float | None = Field(description="upper end of the interval")
    n: int = Field(description="rows that have a value")


class PrepareResult(Printed):
    """A prepared dataset."""

    path: str = Field(description="its folder")
    hash: str = Field(description="hash of all of its content")
    measured_hash: str = Field(description="hash of what results are measured by: rows, targets, items")
    counts: dict[str, Any] = Field(description="users, items, interactions, rows by split, and what was left out")
    warnings: list[str] = Field(description="what looks odd in the data")
    reused: bool = Field(description="whether the folder held the same dataset already")


class Training(Printed):
    """A training run."""

    out: str = Field(description="run folder, with `model/`")
    updates: int = Field(description="updates of the weights")
    best_update: int = Field(description="the update whose checkpoint is kept")
    train_loss: float = Field(description="mean training loss")
    seconds: float = Field(description="time of training")
    cost: dict[str, float] = Field(description="tokens and rows per second, seconds per update, peak memory in MB")
    seconds_a_step: dict[str, float] = Field({}, description="mean seconds of each part of an update")
    truncated: int = Field(description="prompts that lost their oldest items")


class SftResult(Training):
    """A supervised run."""

    best_on: str = Field(description="what picked the checkpoint; `best_` and this name is a field of its own")
    parameters: int = Field(description="parameters that were trained")


class AlignResult(Training):
    """An aligned run."""


class ExportResult(Printed):
    """An exported model."""

    out: str = Field(description="folder that AutoModelForCausalLM.from_pretrained loads")
    parameters: int = Field(description="parameters of the model")
    reused: bool = Field(description="whether the folder held the same model already")


class RationalesResult(Printed):
    """Rationales of a teacher."""

    out: str = Field(description="run folder, with `rationales.jsonl`")
    questions: int = Field(description="candidates that were asked about")
    kept: int = Field(description="rationales that are right, and kept")
    outcomes: dict[str, dict[str, int]] = Field(description="positive and negative candidates by what became of them")
    prompt_tokens: int = Field(description="tokens of the prompts")
    completion_tokens: int = Field(description="tokens of the answers")


class ListedItem(Printed):
    """One position of a list."""

    rank: int = Field(description="from 1")
    title: str | None = Field(description="null where the text names no item")
    hit: bool = Field(description="whether it is a relevant target")


class ExampleList(Printed):
    """One user's list, shortened."""

    row: int = Field(description="index in the split")
    user_id: str = Field(description="raw id")
    history: list[str] = Field(description="titles of the last items, oldest first")
    recommended: list[ListedItem] = Field(description="the first positions")
    missed: list[str] = Field(description="relevant targets that the whole list lacks")


class NamedItem(Printed):
    """An item of the catalogue."""

    item: int = Field(description="index; -1 where text names no item")
    item_id: str | None = Field(description="raw id; null where text names no item")
    title: str | None = Field(description="title; null where text names no item")
    genres: list[str] = Field(description="genres, possibly none")


class RecommendedItem(NamedItem):
    """One position of a recommended list."""

    rank: int = Field(description="from 1")
    score: float = Field(description="the decoder's; higher is better")
    rationale: str | None = Field(description="text that the score was read after; null where none was written")


class RecommendResult(Printed):
    """A list for one person."""

    model: str = Field(description="that recommends")
    data: str = Field(description="prepared dataset whose items are recommended")
    decoder: str = Field(description="name of the decoder")
    history: list[NamedItem] = Field(description="items that were named, as they were understood, oldest first")
    recommended: list[RecommendedItem] = Field(
        description="best first: rank, item, item_id, title, genres, score, rationale"
    )
    line: int | None = Field(None, description="with --stdin: the line that is answered, from 1; errors have it too")


class PredictionsResult(Printed):
    """Predictions for a split."""

    out: str = Field(description="run folder, with `predictions.parquet`")
    decoder: str = Field(description="name of the decoder or recommender")
    oracle: bool = Field(description="whether it read the targets")
    task: str = Field(description="task of the dataset")
    rows: int = Field(description="rows that were answered")
    cost: dict[str, float] = Field(description="prompts, seconds, and for models tokens, passes and peak memory in MB")


class DecodeResult(PredictionsResult):
    """A model's predictions."""

    truncated_prompts: int = Field(description="prompts that lost their oldest items")
    examples: list[ExampleList] = Field([], description="a few users' lists, drawn by seed")


class BaselineResult(PredictionsResult):
    """A conventional recommender's predictions."""

    seconds: float = Field(description="time of fitting")


class Figures(Printed):
    """One system's figures."""

    metrics: dict[str, Mean] = Field(description="metric -> mean, interval, rows")
    corpus: dict[str, float] = Field(description="metric of all lists together -> value")
    rows: int = Field(description="rows")


class EvalResult(Figures):
    """Figures of predictions, as `metrics.json` has them."""

    out: str = Field(description="run folder, with `per_user.parquet` and `metrics.json`")
    label: str = Field(description="name in tables")
    predictions: str = Field(description="decode folder")
    oracle: bool = Field(description="whether the decoder read the targets")
    split: str = Field(description="whose rows were answered")
    list_length: int = Field(description="K")
    higher_is_better: dict[str, bool | None] = Field(description="metric -> direction; null: neither")
    baselines: dict[str, Figures] = Field(description="recommender -> its figures on the same rows")


class ExplainResult(Printed):
    """One user's rows."""

    predictions: str = Field(description="decode folder")
    system: str = Field(description="name in tables")
    split: str = Field(description="whose rows")
    rows: list[dict[str, Any]] = Field(description="history, targets and list of each row of the user")


class Against(Printed):
    """A paired difference to the reference."""

    difference: Mean = Field(description="system - reference")
    p: float | None = Field(description="p-value of the paired test")
    p_holm: float | None = Field(description="after Holm's correction")
    wins: int = Field(description="users with a higher value than the reference's")
    losses: int = Field(description="users with a lower one")


class ComparedSystem(Printed):
    """One system of a comparison."""

    name: str = Field(description="as in tables")
    baseline: bool = Field(description="whether it is a conventional recommender")
    oracle: bool = Field(description="whether it read the targets")
    rows: int = Field(description="rows")
    metrics: dict[str, Mean] = Field(description="metric -> mean, interval, rows")
    corpus: dict[str, float] = Field(description="metric of all lists together -> value")
    against_reference: dict[str, Against] = Field(description="metric -> paired difference; empty for the reference")
    runs: list[dict[str, Any]] = Field(description="folder, seed and means of each run that was aggregated")


class CompareResult(Printed):
    """A comparison, as `table.json` has it."""

    out: str = Field(description="run folder, with `report.html`")
    reference: str = Field(description="system that the others are tested against")
    metrics: list[str] = Field(description="metrics that have a value for each list")
    systems: list[ComparedSystem] = Field(description="models first, then baselines")
    files: list[str] = Field(description="files that were written")


class PrintedStep(Printed):
    """One step of a recipe."""

    id: str = Field(description="step and place in the sweep")
    command: str = Field(description="subcommand")
    out: str = Field(description="run folder")
    state: str = Field(description="what has become, or is to become, of it")


class RunResult(Printed):
    """A recipe."""

    recipe: str = Field(description="its name")
    out: str = Field(description="folder of its steps")
    steps: list[PrintedStep] = Field(description="in order")


class PluginsResult(Printed):
    """Plugins."""

    plugins: list[dict[str, Any]] = Field(description="kind, name, package, version and summary of each, and more")


class ListedPluginsResult(PluginsResult):
    """Plugins that are installed."""

    unread: list[str] = Field(description="sentences on entry points in groups of recalign's that are not read")


class CheckResult(Printed):
    """A package whose plugins are sound."""

    package: str = Field(description="name")
    checked: list[str] = Field(description="kind and name of each plugin")


class NewResult(Printed):
    """A new package."""

    folder: str = Field(description="where it is")
    files: list[str] = Field(description="that were written")


class DoctorResult(Printed):
    """What recalign runs on."""

    recalign: str = Field(description="version")
    python: str = Field(description="version")
    system: str = Field(description="operating system")
    packages: dict[str, str | None] = Field(description="package -> version; null: not installed")
    devices: list[dict[str, Any]] = Field(description="where models compute, the default first")
    cores: dict[str, int] = Field(description="usable and free cores, and threads of models and of small ones")
    memory_gb: dict[str, float] = Field(description="total and available")
    workspace: dict[str, Any] = Field(description="path, free_gb, writable")
    environment: dict[str, str] = Field(description="variables that matter")
    plugins: dict[str, Any] = Field(description="packages, and problems of plugins")
    problems: list[str] = Field(description="what is likely to stop a run")


class SchemaResult(Printed):
    """JSON Schemas."""

    schemas: dict[str, Any] = Field(description="`NAME/VERSION` -> JSON Schema")


class ErrorResult(Printed):
    """What went wrong; exit code 2 for input, 3 for `--fail-if`, 130 when interrupted, 1 for a fault of recalign."""

    error: str = Field(description="what happened")
    hint: str = Field(description="what to do; possibly empty")


SCHEMAS: dict[str, type[Printed]] = {
    "prepare": PrepareResult,
    "rationales": RationalesResult,
    "sft": SftResult,
    "align": AlignResult,
    "export": ExportResult,
    "recommend": RecommendResult,
    "decode": DecodeResult,
    "baseline": BaselineResult,
    "eval": EvalResult,
    "explain": ExplainResult,
    "compare": CompareResult,
    "run": RunResult,
    "doctor": DoctorResult,
    "schema": SchemaResult,
    "plugins list": ListedPluginsResult,
    "plugins show": PluginsResult,
    "plugins check": CheckResult,
    "plugins new": NewResult,
    "error": ErrorResult,
}


def identifier(name: str) -> str:
    """Return the value of the field `schema` of what a command prints, such as `eval/1`."""
    return f"{name.replace(' ', '-')}/{VERSION}"


def json_schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema of what a command prints."""
    schema = SCHEMAS[name].model_json_schema()
    schema["properties"] = {"schema": {"const": identifier(name)}, **schema["properties"]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": identifier(name), **schema}
