"""What `prepare` can be told: one declaration, with bounds, dependent defaults and the checks between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from recalign.data.relevance import check_relevance
from recalign.errors import UserError
from recalign.params import Params, build_params

SHAPE = ("history", "targets", "stride", "list_length")


class PrepareOptions(Params):
    """How raw interactions become rows; `None` means that the value follows from others, as `resolve` says."""

    task: Literal["next", "list"] = Field("next", description="next: one target a row; list: several")
    history: int = Field(10, ge=1, description="items of the history at most")
    min_history: int = Field(1, ge=1, description="items of the history at least")
    targets: int | None = Field(None, ge=1, description="items after the cut that are targets: 1 (next) or 10 (list)")
    stride: int | None = Field(
        None, ge=1, description="events between training windows: 1 (next) or half the targets (list)"
    )
    windows_per_user: int = Field(
        0, ge=0, description="keep so many training windows a user at most, evenly spread; 0: all"
    )
    list_length: int | None = Field(
        None, ge=1, description="titles of a response: 1 (next) or 5 (list), no more than the targets"
    )
    split: Literal["time", "user", "leave-one-out", "given"] = Field("time", description="what is held out")
    folds: int | None = Field(None, ge=2, description="split user: number of folds")
    fold: int = Field(1, ge=1, description="split user: which fold is tested, from 1")
    valid_share: float = Field(0.1, gt=0, lt=0.5, description="share of time, users or given windows that validate")
    test_share: float = Field(0.1, gt=0, lt=0.5, description="share of time or users that test (with folds: 1/folds)")
    k_core: int = Field(0, ge=0, description="every user and item keeps at least so many interactions")
    popularity_cut: float | None = Field(None, gt=0, le=100, description="keep the top percent of items, before k-core")
    duplicates: Literal["keep", "drop", "first", "last"] = Field(
        "keep",
        description="drop: exact duplicates once; first, last: of a user's interactions with an item the first or last",
    )
    candidates: int = Field(
        0, ge=0, description="size of candidate sets, such as 20 (1 target + 19 negatives); 0: none"
    )
    relevance: str = Field("all", description='all, rating (graded) or "rating>=4"')
    identifier: Literal["title", "semantic", "atomic"] = Field("title", description="how a model writes an item")
    semantic_levels: int = Field(3, ge=1, le=8, description="semantic: tokens an item, one more where items share them")
    semantic_codebook: int = Field(0, ge=0, le=65536, description="semantic: different tokens a level; 0: by size")
    semantic_embeddings: str | None = Field(None, description="semantic: file of item embeddings; else our own")
    exclude_history: Literal["auto", "yes", "no"] = Field("auto", description="never recommend items of the history")
    collisions: Literal["suffix", "merge", "refuse"] = Field("suffix", description="what becomes of items of one title")
    drop_cold: bool = Field(False, description="leave out items that no training interaction names, and rows that do")
    drop_invalid: bool = Field(
        False,
        description="leave out records that cannot be read, items with unusable titles and events of unknown items; of "
        "contradicting rows of an item, the first counts",
    )


def resolve(given: Mapping[str, Any], suggested: Mapping[str, Any]) -> PrepareOptions:
    """Merge what the user gave (None: nothing) with what the source suggests, and fill in what follows.

    What is suggested for history, targets, stride and list length belongs to the suggested task; another one drops it.

    Raises:
        UserError: a value that its declaration refuses, or values that contradict each other.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    if chosen.get("task", suggested.get("task")) != suggested.get("task"):
        suggested = {name: value for name, value in suggested.items() if name not in SHAPE}
    try:
        options = build_params(PrepareOptions, {**suggested, **chosen}, "prepare")
    except UserError as error:
        raise UserError(error.what.replace("_", "-"), "`recalign prepare --help` lists the options.") from None
    single = options.task == "next"
    targets = options.targets or (1 if single else 10)
    filled = {
        "targets": targets,
        "stride": options.stride or (1 if single else max(1, targets // 2)),
        "list_length": options.list_length or (1 if single else min(5, targets)),
    }
    options = options.model_copy(update=filled)
    _check(options, chosen)
    return options


def _check(options: PrepareOptions, chosen: Mapping[str, Any]) -> None:
    """Refuse options that contradict each other."""
    check_relevance(options.relevance)
    if options.task == "next" and (options.targets, options.list_length) != (1, 1):
        raise UserError(
            f"The next task has one target and one title a response, not {options.targets} and {options.list_length}.",
            "Pass --task list.",
        )
    if options.list_length > options.targets:
        raise UserError(
            f"--list-length {options.list_length} is more than --targets {options.targets}; a response imitates them.",
            "Raise --targets or lower --list-length.",
        )
    if options.fold > (options.folds or round(1 / options.test_share)):
        raise UserError(f"--fold {options.fold} is more than --folds {options.folds}.", "Folds are counted from 1.")
    if options.split != "user" and ("folds" in chosen or "fold" in chosen):
        raise UserError(f"--folds and --fold belong to --split user, not to --split {options.split}.")
    semantic = sorted(name for name in chosen if name.startswith("semantic_"))
    if semantic and options.identifier != "semantic":
        raise UserError(f"--{semantic[0].replace('_', '-')} belongs to --identifier semantic.")
    if options.semantic_codebook == 1:
        raise UserError("--semantic-codebook 1 tells no items apart.", "Use 2 or more, or 0 to let the size decide.")
    if options.min_history > options.history:
        raise UserError(f"--min-history {options.min_history} is more than --history {options.history}.")
    if 0 < options.candidates <= options.targets:
        raise UserError(f"--candidates {options.candidates} leaves no room beside {options.targets} targets.")
