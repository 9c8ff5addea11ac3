"""MiniOneRec's data: CSVs of history and target by split, the titles of info, and the semantic identifiers of index."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recalign.api import Field, Params, RawData, Source, UserError, hookimpl
from recalign.sources.dumps import windows_of
from recalign.sources.reading import Column, Read, existing_folder, glimpse, open_table, require, typed
from recalign.sources.reading.files import document

if TYPE_CHECKING:
    pass

SPLITS = ("train", "valid", "test")
INFO = ["identifier", "title", "item_id"]
NUMBER = re.compile(r"<[^<>]*?_?(\d+)>")


class MiniOneRecParams(Params):
    """What the files do not say themselves."""

    category: str | None = Field(
        None, description="beginning of the files' names, where the folder holds several, such as Office_Products"
    )
    identifiers: bool = Field(
        False, description="bring the identifiers of the index along, as --identifier semantic writes them"
    )


class MiniOneRec(Source):
    """Reads the folder `data/Amazon`: `train/`, `valid/`, `test/`, `info/` and, for identifiers, `index/`.

    A row is a window: the items of `history_item_id`, and `item_id`, which is predicted. Titles come from
    `info/NAME.txt` (identifier, title, item), descriptions from `index/NAME.item.json` where it is there. With
    `-p identifiers=true` items keep the semantic identifiers of `index/NAME.index.json`; those that share one are told
    apart by one more token. Rows have no time: their order is the time.
    """

    Params = MiniOneRecParams
    paper = "Kong et al., 2025 (MiniOneRec, arXiv:2510.24431)"

    @classmethod
    def recognises(cls, path: Path) -> str:
        """A CSV of training rows with history and target."""
        for file in _found(path, "train", ".csv") if path.is_dir() else []:
            if {"history_item_id", "item_id"} <= set(glimpse(file)):
                return f"{file.relative_to(path)} has history_item_id and item_id"
        return ""

    def files(self, path: Path) -> list[Path]:
        """The CSVs by split, the info and, where they are read, the index and the descriptions.

        Raises:
            UserError: no such folder, or files that are missing or not clear.
        """
        tables = [self._one(path, split, ".csv") for split in SPLITS]
        others = [self._one(path, "info", ".txt")]
        if self.params.identifiers:
            others.append(self._one(path, "index", ".index.json"))
        return [*tables, *others, *self._named(path, "index", ".item.json")[:1]]

    def suggestions(self, path: Path | None) -> Mapping[str, Any]:
        """The split is that of the files; identifiers that are asked for are used."""
        return {"split": "provided", **({"identifier": "semantic"} if self.params.identifiers else {})}

    def read(self, path: Path | None, seed: int) -> RawData:
        """Read rows, titles and identifiers.

        Raises:
            UserError: missing files or columns, or files that cannot be read at all.
        """
        import polars as pl

        assert path is not None  # `prepare` sees to it: needs_path
        rows = {split: _rows(self._one(path, split, ".csv")) for split in SPLITS}
        table = open_table(self._one(path, "info", ".txt"), separator="\t", columns=INFO, quote=None)
        info = typed(table, {"item_id": Column("item_id", "id")})
        items = info.rows.select("item_id", "title", genres=pl.lit([], dtype=pl.List(pl.String)))
        descriptions = self._named(path, "index", ".item.json")
        text = _descriptions(descriptions[0]) if descriptions else {}
        items = items.with_columns(text=pl.col("item_id").replace_strict(text, default="", return_dtype=pl.String))
        return RawData(
            items=items,
            windows={split: windows_of(each) for split, each in rows.items()},
            accounts=[*(each.account for each in rows.values()), info.account],
            codes=_codes(self._one(path, "index", ".index.json")) if self.params.identifiers else None,
        )

    def _named(self, path: Path, part: str, suffix: str) -> list[Path]:
        """Files of a part of the folder whose names begin with the category."""
        found = _found(existing_folder(path), part, suffix)
        return [file for file in found if file.name.startswith(self.params.category or "")]

    def _one(self, path: Path, part: str, suffix: str) -> Path:
        """The one file of a part of the folder."""
        found = self._named(path, part, suffix)
        if len(found) != 1:
            names = ", ".join(file.name for file in found) or "none"
            raise UserError(
                f"{path} must hold one {part}/*{suffix}, but holds {names}.",
                "Name the category with -p category=NAME."
                if found
                else "Name the folder that holds train, valid, test.",
            )
        return found[0]


def _found(path: Path, part: str, suffix: str) -> list[Path]:
    """Files of a part, wherever in the folder it is: train/NAME.csv or NAME.train.csv."""
    inside = [*path.glob(f"{part}/*{suffix}"), *path.glob(f"*/{part}/*{suffix}")]
    return sorted(inside or path.glob(f"*.{part}{suffix}") or ())


def _rows(file: Path) -> Read:
    """Rows of one split."""
    table = open_table(file)
    require(table, {"user": "user_id", "history": "history_item_id", "item": "item_id"})
    columns = {
        "user_id": Column("user_id", "id"),
        "item_id": Column("item_id", "id"),
        "history": Column("history_item_id", "list"),
        "timestamp": Column("order", "order"),
    }
    return typed(table, columns)


def _descriptions(file: Path) -> dict[str, str]:
    """Item -> its description."""
    told = document(file)
    if not isinstance(told, dict):
        raise UserError(f"{file} holds a {type(told).__name__}, not an object item -> title and description.")
    return {item: str(each.get("description") or "") for item, each in told.items() if isinstance(each, dict)}


def _codes(file: Path) -> dict[str, list[int]]:
    """Item -> numbers of its identifier: 12, 3 and 7 of <a_12><b_3><c_7>."""
    told = document(file)
    if not isinstance(told, dict):
        raise UserError(f"{file} holds a {type(told).__name__}, not an object item -> identifier.")
    codes = {}
    for item, tokens in told.items():
        text = "".join(map(str, tokens)) if isinstance(tokens, list) else str(tokens)
        codes[item] = [int(number) for number in NUMBER.findall(text)]
        if not codes[item]:
            raise UserError(f"{file}: the identifier of {item!r} is {tokens!r}.", "Such as ['<a_12>', '<b_3>'].")
    return codes


@hookimpl
def recalign_source() -> type[Source]:
    """Return the plugin class to recalign."""
    return MiniOneRec
