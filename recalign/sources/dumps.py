"""What sources of public dumps share: finding their files, and a catalogue of what was consumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from recalign.api import FileAccount, RawData, UserError
from recalign.sources.reading import Column, Read, Records, existing, typed
from recalign.sources.reading.compression import bare

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Items:
    """A catalogue, and what became of the records that it was read from.

    Args:
        frame: as `RawData.items`.
        accounts: of the files.
    """

    frame: pl.LazyFrame
    accounts: Sequence[FileAccount] = ()


def matching(path: Path, *patterns: str) -> list[Path]:
    """Files of a folder whose names, in lower case and without .gz or .zst, match one of the patterns.

    Args:
        path: the folder, or a file, which is then all there is.
        patterns: such as `meta_*.json`.
    """
    files = sorted(each for each in path.iterdir() if each.is_file()) if path.is_dir() else [path]
    return [file for file in files if any(fnmatch(bare(file.name.lower()), pattern) for pattern in patterns)]


def found(path: Path, what: str, *patterns: str) -> Path:
    """Return the one file that matches.

    Args:
        path: a folder that exists or not, or the file itself.
        what: it should hold, for the error.
        patterns: as in `matching`.

    Raises:
        UserError: there is no such file, or several.
    """
    if not existing(path).is_dir():
        return path
    files = matching(path, *patterns)
    if len(files) != 1:
        names = ", ".join(file.name for file in files or sorted(path.iterdir())[:5]) or "nothing"
        raise UserError(
            f"{path} must hold one file of {what} ({' or '.join(patterns)}), but holds {names}.",
            "Name the file itself as PATH.",
        )
    return files[0]


def consumed(table: Records, item: str, cells: Mapping[str, pl.Expr], ids: pl.Series) -> Items:
    """Read the items that interactions name; a table of items holds many more, and one without an id is no loss.

    Args:
        table: of items.
        item: column of the id.
        cells: column of `RawData.items` -> expression over the table's columns.
        ids: of the items that are named.

    Raises:
        UserError: the file cannot be read at all.
    """
    import polars as pl

    needed = [item, *dict.fromkeys(name for cell in cells.values() for name in cell.meta.root_names())]
    known = ids.cast(pl.String).unique().alias("item_id").to_frame().lazy()
    parts: list[pl.DataFrame] = []

    def keep(frame: pl.DataFrame) -> None:
        rows = frame.lazy().with_columns(item_id=pl.col(item).cast(pl.String))
        rows = rows.join(known, on="item_id", how="semi", maintain_order="left")
        parts.append(rows.select("item_id", **cells).collect())

    account = typed(table, {"item_id": Column(item, "id")}, needed, keep).account
    refused = {
        reason: replace(each, harmless=reason == f"{item} is not an id") for reason, each in account.refused.items()
    }
    if not parts:
        parts.append(pl.DataFrame(schema=dict.fromkeys(["item_id", *cells], pl.String)))
    return Items(pl.concat(parts).lazy(), [replace(account, refused=refused)])


def ids_as_titles(ids: pl.Series) -> Items:
    """Items named by their ids, where nothing else is known of them.

    Args:
        ids: of the items that are named.
    """
    import polars as pl

    frame = ids.unique().cast(pl.String).sort().alias("item_id").to_frame().lazy()
    genres = pl.lit([], dtype=pl.List(pl.String))
    return Items(frame.select("item_id", title="item_id", genres=genres, text=pl.lit("")))


def together(reads: Sequence[Read], splits: Sequence[str] = ()) -> pl.LazyFrame:
    """Interactions of several files, one after the other.

    Args:
        reads: what `typed` returned of each.
        splits: train, valid or test for each, where the files are a split.
    """
    import polars as pl

    if not splits:
        return pl.concat([each.frame for each in reads])
    return pl.concat([each.frame.with_columns(split=pl.lit(name)) for each, name in zip(reads, splits, strict=True)])


def windows_of(read: Read) -> pl.LazyFrame:
    """Windows of a history and the item after it.

    Args:
        read: what `typed` returned, with a list `history` beside user_id, item_id and timestamp.
    """
    import polars as pl

    item = pl.concat_list(pl.col("item_id").cast(pl.String))
    return read.frame.select(
        pl.col("user_id").cast(pl.String), "timestamp", item_ids=pl.col("history").list.concat(item)
    )


def raw_events(reads: Sequence[Read], items: Items, splits: Sequence[str] = ()) -> RawData:
    """Interactions and a catalogue that may have gaps.

    Args:
        reads: what `typed` returned of each file of interactions.
        items: the catalogue.
        splits: as in `together`.
    """
    accounts = [*(each.account for each in reads), *items.accounts]
    return RawData(items=items.frame, events=together(reads, splits), accounts=accounts, partial=True)
