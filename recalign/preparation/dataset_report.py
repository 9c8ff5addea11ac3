"""What `prepare` says about a dataset: counts, and warnings where a number is suspicious."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from recalign.data.arrays import is_member, sorted_unique
from recalign.preparation import findings
from recalign.preparation.events import EventLog
from recalign.preparation.sliding_windows import SlidingWindows
from recalign.preparation.splits import Splits

if TYPE_CHECKING:
    from collections.abc import Callable

    import polars as pl

    from recalign.preparation.prepare_options import PrepareOptions

COLD_LIMIT = 0.05
"""Share of held-out targets that no training interaction contains, above which a warning is due."""

FEW_ROWS = 100
ROUNDED = 0.005
"""Share of users by which folds may miss the share that was asked for, above which it is said."""
LONG_TITLE = 64


def count(
    log: EventLog,
    splits: Splits,
    items: pl.DataFrame,
    training: np.ndarray,
    length: Callable[[str], int],
) -> dict[str, Any]:
    """Count what there is.

    Args:
        log: the events.
        splits: windows by split.
        items: [I] the catalogue: title, genres.
        training: positions of the training interactions.
        length: words or tokens of a title.
    """
    titles = items["title"].to_list()
    size = len(titles)
    given = len(log.owner) != len(log.users)  # windows overlap and tell of one interaction several times
    interactions = len(sorted_unique(log.user * size + log.item)) if given else len(log)
    popularity = np.bincount(log.item[training], minlength=size)
    seen = sorted_unique(log.user[training] * size + log.item[training])
    lengths = np.array([length(title) for title in titles])
    rows = {name: _count_rows(part, popularity, seen, size) for name, part in splits.windows.items()}
    for name, part in rows.items():
        part["users"] = splits.facts["users_per_split"][name]
        part["rows_cut_in_tie"] = 0 if name in splits.as_given else int(splits.windows[name].cut_in_tie().sum())
    return {
        "users": len(log.users),
        "items": size,
        "interactions": interactions,
        "density": interactions / (len(log.users) * size),
        "training_interactions": len(training),
        "items_without_training": int((popularity == 0).sum()),
        "dropped_users": splits.dropped_users,
        "rows": rows,
        "title_length": {"mean": float(lengths.mean()), "max": int(lengths.max())},
        "longest_title": titles[int(lengths.argmax())],
        "genres": _count_genres(items["genres"]),
        **({} if "train" in splits.as_given else {"tied_interactions": int(log.tied.sum())}),
        **{name: value for name, value in splits.facts.items() if name != "users_per_split"},
    }


def _count_genres(genres: pl.Series) -> dict[str, Any]:
    """How many genres there are, how many an item has, and how many items have none.

    Args:
        genres: [I] lists of genres.
    """
    each = genres.list.len()
    return {
        "names": genres.explode().drop_nulls().n_unique(),
        "mean": float(each.mean()),  # type: ignore[arg-type]
        "max": int(each.max()),  # type: ignore[arg-type]
        "items_without": int((each == 0).sum()),
    }


def _count_rows(part: SlidingWindows, popularity: np.ndarray, seen: np.ndarray, items: int) -> dict[str, Any]:
    """Figures of one split.

    Args:
        part: its windows.
        popularity: [I] training interactions.
        seen: sorted keys user * I + item of the training interactions.
        items: I.
    """
    first = part.distinct()
    target = part.target_positions[first]
    key = part.log.user[target] * items + part.log.item[target]
    relevant = ((part.log.gain[part.target_positions] > 0) & first).any(axis=1)
    rows = max(1, len(part))
    return {
        "rows": len(part),
        "history_mean": float((part.hi - part.lo).mean()) if len(part) else 0.0,
        "targets": len(target),
        "cold_targets": int((popularity[part.log.item[target]] == 0).sum()),
        "targets_in_own_training": int(is_member(key, seen).sum()),
        "rows_without_relevant_target": int((~relevant).sum()),
        "rows_with_target_in_past": int(part.repeats_past().sum()),
        "rows_with_target_in_history": int(part.repeats_history().sum()),
        "relevant_share": float(relevant.sum() / rows),
    }


def warnings(counts: dict[str, Any], options: PrepareOptions, unit: str) -> list[str]:
    """Say what is suspicious in the counts, one sentence each."""
    found = []
    for name in ("valid", "test"):
        part = counts["rows"][name]
        share = part["cold_targets"] / max(1, part["targets"])
        if share > COLD_LIMIT:
            found.append(
                f"{share:.0%} of the {name} targets ({part['cold_targets']} of {part['targets']}) appear in no "
                f"training interaction; guessing among the {counts['items_without_training']} items unseen there is "
                "then a strong baseline, and no collaborative method can find these targets."
            )
        if options.split == "provided" and part["targets_in_own_training"]:
            found.append(
                f"{part['targets_in_own_training']} of the {name} targets are among the training interactions of the "
                "same user."
            )
        if part["rows"] < FEW_ROWS:
            found.append(f"The split '{name}' has only {part['rows']} rows; its intervals will be wide.")
        if part["rows_without_relevant_target"] > part["rows"] / 2:
            found.append(
                f"{part['rows_without_relevant_target']} of {part['rows']} {name} rows have no relevant target "
                f"(--relevance {options.relevance!r}); ndcg and recall leave them out."
            )
    found += findings.of_items(counts) + findings.of_events(counts, options)
    if counts["told_apart_by_id"]:
        found.append(
            f"{counts['told_apart_by_id']} items are told apart from others of the same title by their ids only, which "
            "means nothing to a language model; --collisions merge makes them one item."
        )
    if counts["dropped_users"] > counts["users"] / 5:
        found.append(f"{counts['dropped_users']} of {counts['users']} users have too short a history and were dropped.")
    found += _left_out(counts, options)
    if counts["titles_mended"]:
        found.append(f"{counts['titles_mended']} title(s) had line breaks or tabs, which became spaces.")
    if counts["title_length"]["max"] > LONG_TITLE and options.identifier == "title":
        found.append(
            f"The longest title has {counts['title_length']['max']} {unit}: {counts['longest_title'][:60]!r}..."
        )
    return found


def _left_out(counts: dict[str, Any], options: PrepareOptions) -> list[str]:
    """Say which rows, items and events were left out, and why."""
    found = []
    if options.drop_cold:
        gone = counts["cold_rows_left_out"]
        found.append(
            f"{counts['cold_items_left_out']} items without training interactions were left out (--drop-cold), and "
            f"with them {gone['train']} train, {gone['valid']} valid and {gone['test']} test rows."
        )
    short = counts["rows_that_ask_nothing"]
    if any(short.values()):
        found.append(
            f"{short['train']} train, {short['valid']} valid and {short['test']} test rows were left out, which "
            "ask for nothing: their targets name too few different items, or none that the task needs is relevant."
        )
    without = counts.get("held_out_without_row", {})
    if any(without.values()):
        found.append(
            f"{without['valid']} valid and {without['test']} test interactions are no row's target: their user has "
            "fewer training interactions than --min-history, or they are too few for --targets."
        )
    parts = counts.get("folds")
    if parts and options.folds is None and abs(1 / parts - options.test_share) > ROUNDED:
        found.append(
            f"--test-share {options.test_share:g} is rounded to {parts} folds, so that {1 / parts:.1%} of the users "
            "test; --folds says how many there are."
        )
    if counts.get("files_split_in_time") is False:
        found.append(
            "The files do not hold out what comes last in time, so that the history of a held-out row is its user's "
            "training interactions, those after the target among them."
        )
    if counts.get("windows_without_candidates"):
        found.append(
            f"{counts['windows_without_candidates']} windows were left out, whose candidate set lacks their target, "
            "has an item twice or one that the catalogue lacks, or has another size than the others."
        )
    if counts.get("candidate_sets_left_out"):
        found.append(
            f"The source has candidate sets for {counts['candidate_sets_left_out']} windows, which --task rank or "
            "--candidates takes; they were left out."
        )
    for name in ("dropped_items", "dropped_events", "windows_too_short"):
        if counts.get(name):
            found.append(f"{counts[name]} {name.replace('_', ' ').replace('dropped ', '')} were left out.")
    return found
