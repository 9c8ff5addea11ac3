"""Datasets of the Hugging Face hub, folders of `save_to_disk`, and folders of Arrow or Parquet files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from recalign.api import Field, Params, RawData, Source, UserError, hookimpl
from recalign.sources.dumps import Items, consumed, ids_as_titles, matching, together
from recalign.sources.interactions import ROW, Names, in_order, interactions
from recalign.sources.reading import Elements, Fields, Read, Records, choose, existing_file, open_table, require
from recalign.sources.reading.texts import as_json, names

if TYPE_CHECKING:
    import polars as pl

USERS = ("user_id", "userId", "user", "uid", "userID", "reviewerID", "customer_id", "author", "session_id")
ITEMS = ("item_id", "itemId", "parent_asin", "asin", "movieId", "movie_id", "item", "product_id", "iid", "book_id")
LISTS = ("item_ids", "items", "sequence", "item_sequence", "history", "item_id_list", "movie_ids", "asins")
TIMES = ("timestamp", "timestamps", "time", "date", "unixReviewTime", "datetime", "ts")
RATINGS = ("rating", "ratings", "score", "stars", "overall")
TITLES = ("title", "movie_title", "name", "item_name", "product_title", "book_title")
GENRES = ("genres", "genre", "categories", "category")
FILES = ("*.arrow", "*.parquet")


class HuggingFaceParams(Params):
    """Which part of a dataset, and which columns, where their names do not tell."""

    config: str | None = Field(None, description="name of the dataset's configuration")
    split: str | None = Field(None, description="split to read; all of them where not given")
    user: str | None = Field(None, description=f"column of the user id; the first of {', '.join(USERS[:4])}, ...")
    item: str | None = Field(
        None, description="column of the item id, or of a user's list of items; the first of item_id, item_ids, ..."
    )
    interactions: str | None = Field(
        None, description="column of a user's list of objects, each an interaction; the one whose objects name items"
    )
    timestamp: str | None = Field(
        None,
        description="column of the time, or of a list of times; the first of timestamp, time, ...; `row`: the order",
    )
    rating: str | None = Field(None, description="column of the rating; the first of rating, stars, ...; `none`: none")
    meta: Path | None = Field(None, description="table of items (.parquet, .arrow, .csv, .jsonl) with ids and titles")
    title: str | None = Field(None, description=f"column of the title; the first of {', '.join(TITLES[:4])}, ...")
    genres: str | None = Field(None, description=f"column of the genres; the first of {', '.join(GENRES)}")


class HuggingFace(Source):
    """Reads a dataset by its name on the hub, or from disk.

    PATH is a name such as `org/dataset`, a folder that `save_to_disk` wrote, a folder of .arrow or .parquet files, or
    one such file. A row is an interaction, or a user with a list of items, the oldest first, or of objects with an item
    each. The columns, those of objects too, are found by their usual names; `-p user=…` and its like name others.
    Splits are read as one log, which `prepare` splits anew.
    """

    Params = HuggingFaceParams
    paper = "Lhoest et al., EMNLP 2021 (datasets)"
    reads_names: ClassVar[bool] = True
    general: ClassVar[bool] = True

    @classmethod
    def recognises(cls, path: Path) -> str:
        """A folder of `save_to_disk`, or of Arrow or Parquet files."""
        if path.is_dir():
            for name in ("dataset_dict.json", "dataset_info.json", "state.json"):
                if (path / name).is_file():
                    return f"it holds {name}"
        found = matching(path, *FILES)
        return f"{found[0].name} is Arrow or Parquet" if found else ""

    def files(self, path: Path) -> list[Path]:
        """The Arrow or Parquet files, and the table of items.

        Raises:
            UserError: there is no such dataset, or it has no such split.
        """
        return [*self._data(path), *([existing_file(self.params.meta)] if self.params.meta else [])]

    def read(self, path: Path | None, seed: int) -> RawData:
        """Read interactions and items.

        Raises:
            UserError: no such dataset, missing columns, or files that cannot be read at all.
        """
        import polars as pl

        assert path is not None  # `prepare` sees to it: needs_path
        tables = [self._opened(file) for file in self._data(path)]
        reads = in_order([interactions(table, self._names(table)) for table in tables], self._names(tables[0]))
        accounts = [each.account for each in reads]
        title = choose(tables[0], "title", self.params.title, TITLES) if self.params.meta is None else None
        if self.params.meta is not None:
            ids = together(reads).select(pl.col("item_id").unique()).collect().to_series()
            items = self._items(self.params.meta, ids)
            return RawData(items.frame, together(reads), accounts=[*accounts, *items.accounts], partial=True)
        listed = isinstance(tables[0].schema[self._names(tables[0]).item], pl.List)  # whose title is the user's
        if title is not None and not listed and isinstance(tables[0].schema[title], pl.String):
            frame = pl.concat([self._mentioned(*each, title) for each in zip(tables, reads, strict=True)])
            return RawData(frame, together(reads), accounts=accounts, items_per_event=True)
        ids = together(reads).select(pl.col("item_id").unique()).collect().to_series()
        return RawData(ids_as_titles(ids).frame, together(reads), accounts=accounts)

    def _opened(self, file: Path) -> Records:
        """A file's records, or the objects in their lists, whichever name items.

        Raises:
            UserError: several columns hold such lists.
        """
        import polars as pl

        table, p = open_table(file), self.params
        if any(isinstance(dtype, pl.Struct) for dtype in table.schema.values()):
            table = Fields(table)
        around = [name for name in table.schema if name not in (*TITLES, *GENRES)]  # those are of users
        known = (*ITEMS, *LISTS) if p.item is None else (p.item,)
        lists = {
            name: {field.name for field in dtype.inner.fields}
            for name, dtype in table.schema.items()
            if isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.Struct)
        }
        if p.interactions is not None:
            require(table, {"interactions": p.interactions})
            if p.interactions not in lists:
                raise UserError(
                    f"{file}: '{p.interactions}' holds {table.schema[p.interactions]}, not lists of objects.",
                    f"{', '.join(lists) or 'No column'} does: name it with -p interactions=COLUMN.",
                )
            return Elements(table, p.interactions, around=around)
        fitting = [name for name, fields in lists.items() if not fields.isdisjoint(known)]
        if not fitting or not set(known).isdisjoint(table.schema.keys() - lists.keys()):
            return table
        if len(fitting) > 1:
            raise UserError(
                f"{file} has several columns with lists of objects that name items: {', '.join(fitting)}.",
                "Name one with -p interactions=COLUMN.",
            )
        return Elements(table, fitting[0], around=around)

    def _names(self, table: Records) -> Names:
        """The columns of interactions."""
        p = self.params
        user = choose(table, "user", p.user, USERS)
        item = choose(table, "item", p.item, (*ITEMS, *LISTS))
        for option, found in (("user", user), ("item", item)):
            if found is None:
                columns = ", ".join(table.schema)
                raise UserError(
                    f"{table.file} has no column that is named as {option}s usually are; it has {columns}.",
                    f"Name it with -p {option}=COLUMN.",
                )
        time = ROW if p.timestamp == ROW else choose(table, "timestamp", p.timestamp, TIMES) or ROW
        rating = None if p.rating == "none" else choose(table, "rating", p.rating, RATINGS)
        return Names(user or "", item or "", time, rating)

    def _mentioned(self, table: Records, read: Read, title: str) -> pl.LazyFrame:
        """Items as the interactions describe them."""
        import polars as pl

        genres = choose(table, "genres", self.params.genres, GENRES)
        cells = {"genres": pl.col(genres)} if genres else {"genres": pl.lit("")}
        return read.rows.select(item_id=pl.col(self._names(table).item).cast(pl.String), title=title, **cells)

    def _items(self, file: Path, ids: pl.Series) -> Items:
        """Items of a table of their own."""
        import polars as pl

        table, p = open_table(existing_file(file)), self.params
        item = choose(table, "item", None, ITEMS) or "item_id"
        title = choose(table, "title", p.title, TITLES) or "title"
        require(table, {"item": item, "title": title})
        genres = choose(table, "genres", p.genres, GENRES)
        listed = genres is not None and isinstance(table.schema[genres], pl.List)
        cell = pl.lit("") if genres is None else names(as_json(table, genres)) if listed else pl.col(genres)
        return consumed(table, item, {"title": pl.col(title).cast(pl.String), "genres": cell}, ids)

    def _data(self, path: Path) -> list[Path]:
        """The files of the data."""
        if path.is_file():
            return [path]
        loose = matching(path, *FILES) if path.is_dir() else []
        saved = any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))
        return loose if loose and not saved else self._cached(path, saved)

    def _cached(self, path: Path, saved: bool) -> list[Path]:
        """Files that `datasets` keeps of a dataset, which it downloads where need be."""
        import datasets

        try:
            loaded: Any = (
                datasets.load_from_disk(str(path)) if saved else datasets.load_dataset(str(path), self.params.config)
            )
        except (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError) as error:
            raise UserError(
                f"The dataset {str(path)!r} cannot be loaded: {_said(error)}.",
                "Name a folder that is there, or a dataset of the hub as ORG/NAME; -p config=NAME if it has several.",
            ) from None
        splits = loaded if isinstance(loaded, dict) else {"train": loaded}
        if self.params.split is not None:
            if self.params.split not in splits:
                raise UserError(f"{path} has no split '{self.params.split}': it has {', '.join(splits)}.", "")
            splits = {self.params.split: splits[self.params.split]}
        return [Path(each["filename"]) for split in splits.values() for each in split.cache_files]


def _said(error: Exception) -> str:
    """The first line of what was raised."""
    said = str(error) if isinstance(error, OSError) or not error.args else str(error.args[0])
    return (said or repr(error)).splitlines()[0].rstrip(".")


@hookimpl
def recalign_source() -> type[Source]:
    """Return the plugin class to recalign."""
    return HuggingFace
