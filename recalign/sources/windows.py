"""Ready-made windows: train, valid and test CSVs of item lists and an id-to-title JSON, as BEAR and MSL publish."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from recalign.api import Field, Params, RawData, Source, UserError, hookimpl
from recalign.sources.reading import Column, Read, existing_file, existing_folder, glimpse, open_table, require, typed
from recalign.sources.reading.catalogues import read_titles

if TYPE_CHECKING:
    import polars as pl

FILES = {"train": "train.csv", "valid": "valid.csv", "test": "test.csv"}


class WindowsParams(Params):
    """Which files and columns to read."""

    titles: str | None = Field(
        None, description="JSON file of the folder, id -> title; the only *.json where not given"
    )
    user: str = Field("user_id", description="column of the user id")
    items: str = Field("item_ids", description="column of the item ids, a list literal, oldest first, targets last")
    timestamp: str = Field("timestamp", description="column of the time of the target")
    candidates: str | None = Field(
        None, description="column of the ids that a row ranks, a list literal, its target among them (--task rank)"
    )
    encoding: str = Field("utf-8", description="encoding of files without a byte order mark, such as latin-1")


class Windows(Source):
    """Reads a folder with `train.csv`, `test.csv`, possibly `valid.csv`, and the titles; the files are the split.

    Without a `valid.csv` only a fiftieth of the training windows validates: the windows just before the test ones are
    what tells of new items, and papers train on all of them.
    """

    Params = WindowsParams
    suggests: ClassVar[dict[str, Any]] = {"split": "provided", "valid_share": 0.02}

    @classmethod
    def recognises(cls, path: Path) -> str:
        """A folder with train.csv, test.csv and a JSON file, whose columns are those of windows."""
        folder = path.is_dir() and all((path / name).is_file() for name in ("train.csv", "test.csv"))
        fits = folder and any(path.glob("*.json")) and "item_ids" in glimpse(path / "train.csv")
        return "train.csv and test.csv have item_ids" if fits else ""

    def files(self, path: Path) -> list[Path]:
        """The windows' files and, last, the titles' file.

        Raises:
            UserError: no such folder, a file is missing, or the titles' file is not clear.
        """
        existing_folder(path)
        found = [path / name for split, name in FILES.items() if split != "valid" or (path / name).is_file()]
        titles = [path / self.params.titles] if self.params.titles else sorted(path.glob("*.json"))
        if len(titles) != 1:
            names = ", ".join(file.name for file in titles) or "none"
            raise UserError(
                f"{path} must hold one JSON file of titles, but holds {names}.", "Name it with -p titles=FILE."
            )
        return [existing_file(file) for file in found + titles]

    def read(self, path: Path | None, seed: int) -> RawData:
        """Read windows and titles.

        Raises:
            UserError: missing files or columns, or files that cannot be read at all.
        """
        import polars as pl

        assert path is not None  # `prepare` sees to it: needs_path
        *tables, titles = self.files(path)
        splits = {name: split for split, name in FILES.items()}
        read = {splits[file.name]: self._windows(file) for file in tables}
        return RawData(
            items=_titles(titles, self.params.encoding),
            windows={split: each.frame.cast({"user_id": pl.String}) for split, each in read.items()},
            accounts=[each.account for each in read.values()],
        )

    def _windows(self, file: Path) -> Read:
        """Windows of one file."""
        p, table = self.params, open_table(file, encoding=self.params.encoding)
        ranked = {} if p.candidates is None else {"candidates": p.candidates}
        require(table, {"user": p.user, "items": p.items, "timestamp": p.timestamp, **ranked})
        columns = {
            "user_id": Column(p.user, "id"),
            "item_ids": Column(p.items, "list"),
            "timestamp": Column(p.timestamp, "time"),
            **{name: Column(column, "list") for name, column in ranked.items()},
        }
        return typed(table, columns)


def _titles(file: Path, encoding: str) -> pl.LazyFrame:
    """Items from a JSON object id -> title, or id -> list of titles."""
    import polars as pl

    names = read_titles(file, encoding)
    frame = pl.LazyFrame(
        {"item_id": list(names), "title": list(names.values())}, schema={"item_id": pl.String, "title": pl.String}
    )
    return frame.with_columns(genres=pl.lit([], dtype=pl.List(pl.String)), text=pl.lit(""))


@hookimpl
def recalign_source() -> type[Source]:
    """Return the plugin class to recalign."""
    return Windows
