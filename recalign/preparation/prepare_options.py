"""What `prepare` can be told: one declaration, with bounds, dependent defaults and the checks between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

from pydantic import Field

from recalign.errors import UserError
from recalign.params import Params, build_params
from recalign.preparation.relevance import check_relevance
from recalign.preparation.times import point_of_time
from recalign.tasks import TASKS, find_task

RESHAPING = (
    "ties",
    "mend_times",
    "since",
    "until",
    "min_rating",
    "min_user_interactions",
    "min_item_interactions",
    "duplicates",
    "popularity_cut",
    "k_core",
    "full_windows",
    "windows_per_user",
)
"""What orders interactions or leaves some out, which ready-made windows have behind them."""

SHAPE = ("history", "targets", "stride", "list_length")


class PrepareOptions(Params):
    """How raw interactions become rows; `None` means that the value follows from others, as `resolve` says."""

    task: Literal[tuple(TASKS)] = Field(  # type: ignore[valid-type]
        "next",
        description=f"{'; '.join(f'{task.name}: {task.summary}' for task in TASKS.values())}; a source may suggest",
    )
    history: int = Field(10, ge=1, description="maximum number of items of a history; 20 for rank")
    min_history: int = Field(1, ge=1, description="minimum number of items of a history")
    targets: int | None = Field(None, ge=1, description="targets per row: 1 for next and rank, 10 for list")
    stride: int | None = Field(
        None, ge=1, description="events between two training windows: 1 for next and rank, half the targets for list"
    )
    full_windows: bool = Field(
        False,
        description="only windows with a whole history; of a user with fewer interactions one, of all of them",
    )
    windows_per_user: int = Field(
        0, ge=0, description="maximum number of training windows per user, evenly spread over time; 0 keeps all"
    )
    list_length: int | None = Field(
        None,
        ge=1,
        description="titles per response: 1 for next, 5 for list, no more than the targets; rank orders all candidates",
    )
    split: Literal["time", "user", "leave-one-out", "last-n", "provided"] = Field(
        "time",
        description="what is held out: time (8:1:1 over all), user (some users, in folds; of rank), leave-one-out "
        "(each user's last targets), last-n (each user's last --held-out), or provided (by the source's files)",
    )
    held_out: int | None = Field(
        None, ge=1, description="split last-n: interactions of each user that test; as many before them validate"
    )
    folds: int | None = Field(None, ge=2, description="split user: number of folds; without it --test-share decides")
    fold: int = Field(1, ge=1, description="split user: the fold that is tested, counted from 1")
    valid_share: float = Field(
        0.1, gt=0, lt=0.5, description="share of time, of users or of provided windows that validates"
    )
    test_share: float = Field(0.1, gt=0, lt=0.5, description="share of time or of users that tests, without folds")
    same_ids: Literal["exact", "blanks", "case"] = Field(
        "exact",
        description="which ids of users and items are one: exact, or those that differ only by blanks, invisible "
        "characters or Unicode form (blanks), and by case too (case)",
    )
    ties: Literal["file", "reversed", "item", "random"] = Field(
        "file",
        description="order of a user's interactions of one time: file (as its rows), reversed (its rows are newest "
        "first), item (by item), random (seeded); with the last two the order of the rows decides nothing",
    )
    mend_times: bool = Field(
        False, description="bring times of milli-, micro- or nanoseconds to seconds, each by its size"
    )
    since: str | None = Field(
        None, description="leave out what is earlier than this date, such as 2014-07-01, or number"
    )
    until: str | None = Field(None, description="leave out what is not earlier than this date or number")
    min_rating: float | None = Field(
        None, description="leave out lower ratings; they are then neither in histories nor targets, unlike --relevance"
    )
    min_user_interactions: int = Field(
        0, ge=0, description="leave out users with fewer interactions, once and before the popularity cut"
    )
    min_item_interactions: int = Field(
        0, ge=0, description="leave out items with fewer interactions, once and after --min-user-interactions"
    )
    k_core: int = Field(0, ge=0, description="minimum number of interactions of every user and item")
    popularity_cut: float | None = Field(
        None, gt=0, le=100, description="keep this percentage of items, the most popular, before k-core; all by default"
    )
    duplicates: Literal["keep", "drop", "first", "last"] = Field(
        "keep",
        description="repeated interactions: keep, drop (exact duplicates count once), or only a user's first or last "
        "with an item; before all other rules",
    )
    candidates: int = Field(
        0, ge=0, description="size of candidate sets, such as 20 (1 target and 19 negatives); 0 makes none; 20 for rank"
    )
    negatives: Literal["uniform", "popularity", "category"] = Field(
        "uniform",
        description="negatives of candidate sets among the items that the user never had: uniform, popularity (by "
        "training interactions) or category (those that share a genre with the target, as far as there are any)",
    )
    relevance: str = Field("all", description='targets that metrics count: all, rating (graded), or "rating>=4"')
    identifier: Literal["title", "semantic", "atomic"] = Field(
        "title", description="how a model writes an item: title, semantic (3-4 new tokens) or atomic (one new token)"
    )
    semantic_levels: int = Field(
        3, ge=1, le=8, description="semantic: tokens per item, and one more where items share them"
    )
    semantic_codebook: int = Field(
        0, ge=0, le=65536, description="semantic: different tokens per level; 0 lets the size of the catalogue decide"
    )
    semantic_embeddings: str | None = Field(
        None, description="semantic: item_id and embedding in .parquet or .npz, in place of recalign's own embeddings"
    )
    exclude_history: Literal["auto", "yes", "no"] = Field(
        "auto",
        description="never recommend items of the history: yes, no (so for rank), or auto (as the training targets do)",
    )
    collisions: Literal["suffix", "merge", "refuse"] = Field(
        "suffix", description="what becomes of items whose titles look alike: suffix, merge or refuse"
    )
    drop_cold: bool = Field(
        False, description="leave out items that no training interaction names, and the rows that name them"
    )
    drop_invalid: bool = Field(
        False,
        description="leave out records that cannot be read, items with unusable titles and events of unknown items; of "
        "contradicting rows of an item, the first counts",
    )


def reshaping(options: PrepareOptions) -> list[str]:
    """The options that order interactions or leave some out, as far as they are not at their defaults."""
    fields = PrepareOptions.model_fields
    return [f"--{name.replace('_', '-')}" for name in RESHAPING if getattr(options, name) != fields[name].default]


def resolve(given: Mapping[str, Any], suggested: Mapping[str, Any]) -> PrepareOptions:
    """Merge what the user gave (None: nothing) with what the source suggests, and fill in what follows.

    What is suggested for history, targets, stride and list length belongs to the suggested task; another one drops it,
    and has defaults of its own. How ready-made windows are split, no task changes.

    Raises:
        UserError: a value that its declaration refuses, or values that contradict each other.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    task = TASKS.get(chosen.get("task", suggested.get("task", PrepareOptions.model_fields["task"].default)))
    own = {} if task is None else task.prepare_defaults
    if chosen.get("task", suggested.get("task")) != suggested.get("task"):
        provided = suggested.get("split") == "provided"
        suggested = {
            name: value for name, value in suggested.items() if name not in SHAPE and (provided or name not in own)
        }
    try:
        options = build_params(PrepareOptions, {**own, **suggested, **chosen}, "prepare")
    except UserError as error:
        raise UserError(error.what.replace("_", "-"), "`recalign prepare --help` lists the options.") from None
    shape = find_task(options.task).shape(options.targets, options.stride, options.list_length, options.candidates)
    options = options.model_copy(update=asdict(shape))
    _check(options, chosen)
    return options


def _check(options: PrepareOptions, chosen: Mapping[str, Any]) -> None:
    """Refuse options that contradict each other."""
    check_relevance(options.relevance)
    for name in ("since", "until"):
        if getattr(options, name) is not None:
            point_of_time(getattr(options, name), f"--{name}")
    if options.fold > (options.folds or round(1 / options.test_share)):
        raise UserError(f"--fold {options.fold} is more than --folds {options.folds}.", "Folds are counted from 1.")
    if options.split != "user" and ("folds" in chosen or "fold" in chosen):
        raise UserError(f"--folds and --fold belong to --split user, not to --split {options.split}.")
    if (options.split == "last-n") != (options.held_out is not None):
        raise UserError("--split last-n and --held-out N belong together.", "Pass both, or neither.")
    if options.held_out is not None and options.held_out < options.targets:
        raise UserError(f"--held-out {options.held_out} is less than --targets {options.targets}.", "Raise --held-out.")
    semantic = sorted(name for name in chosen if name.startswith("semantic_"))
    if semantic and options.identifier != "semantic":
        raise UserError(f"--{semantic[0].replace('_', '-')} belongs to --identifier semantic.")
    if options.semantic_codebook == 1:
        raise UserError("--semantic-codebook 1 tells no items apart.", "Use 2 or more, or 0 to let the size decide.")
    if options.min_history > options.history:
        raise UserError(f"--min-history {options.min_history} is more than --history {options.history}.")
    if "negatives" in chosen and not options.candidates:
        raise UserError("--negatives belongs to candidate sets, and there are none.", "Pass --candidates 20, too.")
    if 0 < options.candidates <= options.targets:
        raise UserError(f"--candidates {options.candidates} leaves no room beside {options.targets} targets.")
