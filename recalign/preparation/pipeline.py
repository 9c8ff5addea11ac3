"""From a source's raw interactions to a prepared dataset, which appears whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recalign import console, workspace
from recalign.data.arrays import sorted_unique
from recalign.data.catalogue import Catalogue
from recalign.data.dataset import FORMAT_VERSION, SPLITS
from recalign.data.item_vectors import existing_file
from recalign.errors import FULL, UserError
from recalign.plugins import registry
from recalign.preparation import dataset_report as report
from recalign.preparation.accounts import check_accounts, counted, left_out
from recalign.preparation.candidates import NegativeItems, candidate_sets, genre_matrix, provided_sets
from recalign.preparation.cold_items import without_cold
from recalign.preparation.events import EventLog, read_events, to_log
from recalign.preparation.items import CleanItems, clean_items
from recalign.preparation.prepare_options import PrepareOptions, reshaping, resolve
from recalign.preparation.profiles import read_profiles
from recalign.preparation.provided_windows import once, read_windows
from recalign.preparation.relevance import gains
from recalign.preparation.report_table import table
from recalign.preparation.semantic_ids import given_codes, semantic_codes
from recalign.preparation.sliding_windows import SlidingWindows
from recalign.preparation.splits import SPLITTERS, Splits, as_provided
from recalign.preparation.writing import Digest, write_interactions, write_items, write_rows
from recalign.runs.lifecycle import Asked, perform_whole
from recalign.tasks import find_task

if TYPE_CHECKING:
    import polars as pl

    from recalign.api import FileAccount, RawData, Source

DEFAULT_SOURCE = "synthetic"


@dataclass(frozen=True)
class Prepared:
    """What is to be written.

    Args:
        log: the events, with item indices of the final catalogue.
        items: [I] the catalogue's frame.
        cleaned: what was done to the titles.
        splits: windows by split.
        training: positions of the training interactions.
        facts: what the report should say of how the events were read, `dropped_events` (events or windows of unknown
            items that were left out) among them.
        accounts: what became of the records of each file that was read.
        codes: as in `RawData`.
        profiles: [U] what the source says of each user of the log, possibly nothing; None: it says nothing of any.
    """

    log: EventLog
    items: pl.DataFrame
    cleaned: CleanItems
    splits: Splits
    training: np.ndarray
    facts: dict[str, Any]
    accounts: Sequence[FileAccount] = ()
    codes: Mapping[str, Sequence[int]] | None = None
    profiles: Sequence[str] | None = None


def prepare_dataset(
    source: str,
    path: Path | None,
    out: Path,
    *,
    params: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    tokenizer: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Prepare a dataset; do nothing where `out` already holds the same one.

    Args:
        source: name of a source plugin.
        path: what it reads.
        out: folder to write.
        params: the source's parameters.
        options: fields of PrepareOptions; None values and absent ones follow the source's suggestions and the defaults.
        tokenizer: Hugging Face name or folder whose tokens measure the titles in the report; words where None.
        seed: of made-up data, of folds, of candidate sets.
        overwrite: replace what `out` holds.

    Returns:
        path, hash, counts, warnings, and whether it was there already (`reused`).

    Raises:
        UserError: bad options or input; nothing is then written, and what `out` held stays.
    """
    plugin: Source = registry.create("source", source, params or {})  # type: ignore[assignment]
    path = _checked_path(plugin, path)
    settings = settle(plugin, path, options or {})
    recorded = {
        "source": source,
        "path": str(path) if path else None,
        "params": plugin.params.model_dump(mode="json"),
        "seed": seed,
        "tokenizer": tokenizer,
        **settings.model_dump(),
    }
    with _reading(plugin, path, "files"):
        read = list(plugin.files(path)) if path else []
    if settings.semantic_embeddings is not None:
        read.append(existing_file(Path(settings.semantic_embeddings)))
    inputs = {str(file): _file_hash(file) for file in read}
    results, reused = perform_whole(
        workspace.RunFolder(out),
        Asked("prepare", recorded, inputs),
        lambda: build(plugin, path, settings, seed),
        lambda prepared, folder: _write(folder, prepared, settings, recorded, tokenizer),
        overwrite=overwrite,
    )
    if reused:
        console.say(f"{out} holds this dataset already; nothing to do (--overwrite prepares it again).")
    return {**results, "path": str(out), "reused": reused}


def settle(plugin: Source, path: Path | None, options: Mapping[str, Any]) -> PrepareOptions:
    """Fill in what the source suggests and what follows; arguments and errors as in `prepare_dataset`."""
    with _reading(plugin, path, "suggestions"):
        return resolve(options, plugin.suggestions(path))


def ensure_default_dataset(seed: int = 0) -> Path:
    """Return the workspace's dataset; make it from the embedded default, in one line, where there is none."""
    out = workspace.home() / "data"
    if not (out / "dataset.json").is_file():
        console.say(
            f"No dataset is prepared: making the embedded default (source {DEFAULT_SOURCE}, seed {seed}) in {out}."
        )
        prepare_dataset(DEFAULT_SOURCE, None, out, seed=seed)
    return out


def build(plugin: Source, path: Path | None, options: PrepareOptions, seed: int) -> Prepared:
    """Read, clean, filter and split; nothing is written.

    Raises:
        UserError: whatever is wrong with the input.
    """
    with _reading(plugin, path):
        raw = plugin.read(path, seed)
        check_accounts(raw.accounts, options.drop_invalid)
        cleaned = clean_items(
            raw.items,
            options.collisions,
            options.drop_invalid or raw.partial,
            per_event=raw.items_per_event,
            genre_separator=raw.genre_separator,
            same_ids=options.same_ids,
        )
    if raw.windows is not None:
        prepared = _from_windows(plugin, path, raw, cleaned, options)
    else:
        prepared = _from_events(plugin, path, raw, cleaned, options, seed)
    if options.drop_cold:
        log, warm, training, kept = without_cold(prepared.log, prepared.splits, prepared.training, options.min_history)
        prepared = replace(prepared, log=log, splits=warm, training=training, items=prepared.items[kept])
    asked = {name: _asking(part, options) for name, part in prepared.splits.windows.items()}
    splits = replace(prepared.splits, windows={name: part for name, (part, _) in asked.items()})
    _check_rows(splits, options)
    with _reading(plugin, path):
        profiles = None if raw.users is None else read_profiles(raw.users, prepared.log.users, options.same_ids)
    facts = {**prepared.facts, "rows_that_ask_nothing": {name: left_out for name, (_, left_out) in asked.items()}}
    return replace(prepared, splits=splits, facts=facts, accounts=raw.accounts, codes=raw.codes, profiles=profiles)


def _asking(part: SlidingWindows, options: PrepareOptions) -> tuple[SlidingWindows, int]:
    """Leave out the windows that ask for nothing: with too few different targets, or without the positive of a task.

    Returns:
        The others, and how many were left out.
    """
    task = find_task(options.task)
    asks = part.distinct().sum(axis=1) >= task.titles_of_targets(options.list_length)
    if task.positives_only:
        asks &= (part.log.gain[part.target_positions] > 0).any(axis=1)
    return part.take(asks), int((~asks).sum())


@contextlib.contextmanager
def _reading(plugin: Source, path: Path | None, method: str = "read") -> Iterator[None]:
    """Name the path where its data cannot be read, and the source where it misbehaves or hands over unfit frames."""
    import polars as pl

    of_data = (OSError, UnicodeError, json.JSONDecodeError, csv.Error, pl.exceptions.ComputeError)
    with registry.blamed("source", plugin, method):
        try:
            yield
        except (*of_data, pl.exceptions.NoDataError) as error:
            if path is None or getattr(error, "errno", None) in FULL:
                raise
            raise registry.data_error(plugin, path, error) from error
        except pl.exceptions.PolarsError as error:
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            raise registry.plugin_error("source", plugin, f"hands over frames that cannot be read: {why}") from error


def _from_events(
    plugin: Source, path: Path | None, raw: RawData, cleaned: CleanItems, options: PrepareOptions, seed: int
) -> Prepared:
    """Filter and split raw events."""
    if raw.events is None:
        raise registry.plugin_error("source", plugin, "hands over neither events nor windows")
    with _reading(plugin, path):
        kept = read_events(raw.events, cleaned, options, seed, partial=raw.partial)
    log = to_log(kept, gains(options.relevance, kept.rows.rating, len(kept.rows)))
    splits = SPLITTERS[options.split](log, options, seed)
    if options.windows_per_user:
        splits.windows["train"] = splits.windows["train"].at_most(options.windows_per_user)
    facts = {**kept.facts, "dropped_events": kept.unknown}
    return Prepared(log, cleaned.frame[kept.items], cleaned, splits, np.flatnonzero(splits.training), facts)


def _from_windows(
    plugin: Source, path: Path | None, raw: RawData, cleaned: CleanItems, options: PrepareOptions
) -> Prepared:
    """Take ready-made windows as they are."""
    refused = reshaping(options)
    if options.split != "provided" or refused:
        raise UserError(
            "The source brings ready-made windows, which cannot be split again, ordered or filtered.",
            f"Leave out {', '.join(refused or ['--split'])}.",
        )
    with _reading(plugin, path):
        drop_invalid, ranks = options.drop_invalid or raw.partial, options.candidates > 0
        log, split_of, facts = read_windows(raw.windows or {}, cleaned, drop_invalid, ranks=ranks)
    if log.candidates is not None and options.drop_cold:
        raise UserError(
            "The source's candidate sets name items that --drop-cold would leave out.", "Leave out --drop-cold."
        )
    gains(options.relevance, None, len(log))
    splits = as_provided(log, options, split_of)
    return Prepared(log, cleaned.frame, cleaned, splits, once(log, splits.training), facts)


def _check_rows(splits: Splits, options: PrepareOptions) -> None:
    """Refuse a dataset with an empty split, or without any relevant target in one."""
    for name, part in splits.windows.items():
        if not len(part):
            raise UserError(
                f"The split '{name}' has no rows: no user has {options.min_history} + {options.targets} interactions "
                f"there (--min-history, --targets) with "
                f"{find_task(options.task).titles_of_targets(options.list_length)} different targets.",
                "Lower --targets, --list-length, --min-history or --k-core, or choose another --split.",
            )
        if not (part.log.gain[part.target_positions] > 0).any():
            raise UserError(
                f"No target of the split '{name}' is relevant under --relevance {options.relevance!r}.",
                "Choose another --relevance.",
            )


def _write(
    folder: Path, prepared: Prepared, options: PrepareOptions, recorded: dict[str, Any], tokenizer: str | None
) -> dict[str, Any]:
    """Write all files into a fresh folder; returns the results for run.json."""
    log, splits, digest = prepared.log, prepared.splits, Digest()
    size = prepared.items.height
    popularity = np.bincount(log.item[prepared.training], minlength=size)
    codes = _semantic_codes(prepared, options, popularity, recorded["seed"])
    write_items(folder, prepared.items, popularity, codes, digest)
    write_interactions(folder, log, prepared.training, digest)
    consumed = sorted_unique(log.user * size + log.item) if options.candidates else log.item[:0]
    auto = not splits.windows["train"].repeats_past().any()
    exclude = {"yes": True, "no": False, "auto": bool(auto)}[options.exclude_history]
    negatives = NegativeItems(options.negatives, popularity, genre_matrix(prepared.items["genres"].to_list()))
    events = find_task(options.task).shows_events
    for code, name in enumerate(SPLITS):
        part = splits.windows[name]
        sets = None
        random = np.random.default_rng([recorded["seed"], 20, code])
        if log.candidates is not None:
            sets = provided_sets(part, options.candidates, random)
        elif options.candidates:
            sets = candidate_sets(part, consumed, size, options.candidates, random, negatives)
        file, profiles = folder / name / "data.arrow", prepared.profiles if events else None
        write_rows(file, part, sets, digest, earlier=exclude, events=events, profiles=profiles)
    content = {**options.model_dump(), "exclude_history": exclude}
    stated = json.dumps({**content, "semantic_embeddings": None}, sort_keys=True)  # the codes stand for the file
    digest.texts([stated], measured=False)
    length, unit = _title_length(tokenizer)
    counts = report.count(log, splits, prepared.items, prepared.training, length)
    counts |= {**prepared.cleaned.facts, **prepared.facts}
    counts["files"] = counted(prepared.accounts)
    if codes is not None:
        counts["items_sharing_a_code"] = sum(len(code) > options.semantic_levels for code in codes)
    found = left_out(prepared.accounts) + report.warnings(counts, options, unit)
    console.show(table(counts, recorded["source"], unit))
    for line in found:
        console.warn(line)
    results = {**digest.hashes(), "counts": counts, "warnings": found}
    info = {"format": FORMAT_VERSION, "options": {**recorded, **content}, **results}
    workspace.write_json(folder / "dataset.json", info)
    return results


def _semantic_codes(
    prepared: Prepared, options: PrepareOptions, popularity: np.ndarray, seed: int
) -> list[np.ndarray] | None:
    """Semantic identifiers from the training interactions and the items' text, where they were asked for."""
    if options.identifier != "semantic":
        return None
    log, frame = prepared.log, prepared.items
    if prepared.codes is not None:
        return given_codes(prepared.codes, frame["item_id"].to_list(), popularity)
    catalogue = Catalogue(
        item_ids=frame["item_id"].to_list(),
        titles=frame["title"].to_list(),
        genres=[tuple(genres or ()) for genres in frame["genres"].to_list()],
        texts=frame["text"].to_list(),
        popularity=popularity,
    )
    return semantic_codes(
        catalogue,
        log.user[prepared.training],
        log.item[prepared.training],
        levels=options.semantic_levels,
        codebook=options.semantic_codebook,
        embeddings=None if options.semantic_embeddings is None else Path(options.semantic_embeddings),
        seed=seed,
    )


def _title_length(tokenizer: str | None) -> tuple[Callable[[str], int], str]:
    """How long a title is: in words, or in a tokenizer's tokens."""
    if tokenizer is None:
        return lambda title: len(title.split()), "words"
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(tokenizer)
    except (OSError, ValueError) as error:
        raise UserError(f"The tokenizer {tokenizer!r} cannot be loaded: {str(error).splitlines()[0]}") from None
    return lambda title: len(loaded.encode(title, add_special_tokens=False)), "tokens"


def _checked_path(plugin: Source, path: Path | None) -> Path | None:
    """The path, absolute; an error where the source needs one and there is none."""
    if path is None and plugin.needs_path:
        raise UserError(f"The source '{plugin.name}' needs a path.", f"recalign prepare {plugin.name} PATH")
    if path is None or (plugin.reads_names and not Path(path).exists()):
        return path
    return Path(path).resolve()


def _file_hash(file: Path) -> str:
    """Hash of what a file or a folder holds.

    Raises:
        UserError: there is nothing there.
    """
    if not file.exists():
        raise UserError(f"{file} does not exist.", "Check the path.")
    if file.is_dir():
        return workspace.file_hash(file)
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]
