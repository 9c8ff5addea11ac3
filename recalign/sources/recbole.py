"""RecBole's atomic files: `.inter` and `.item` with typed headers such as `user_id:token`, benchmark files too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recalign.api import Field, Params, RawData, Source, UserError, hookimpl
from recalign.sources.dumps import Items, ids_as_titles, matching, together, windows_of
from recalign.sources.interactions import Names, in_order, interactions
from recalign.sources.reading import Column, Read, Records, choose, existing, existing_file, open_table, require, typed
from recalign.sources.reading.texts import separator_of

if TYPE_CHECKING:
    import polars as pl

TITLES = ("title", "movie_title", "item_name", "name", "book_title", "game_title")
YEARS = ("release_year", "year", "publication_year")
ATOMIC = (".inter", ".item", ".user")
SPLITS = {"train": "train", "valid": "valid", "val": "valid", "test": "test"}
HISTORIES = ("item_list", "item_seq", "history")
GENRES = ("class", "genre", "genres", "categories", "category")


class RecboleParams(Params):
    """Which fields to read; names are given without their types."""

    user: str = Field("user_id", description="field of the user id (.inter)")
    item: str = Field("item_id", description="field of the item id (.inter and .item)")
    timestamp: str = Field("timestamp", description="field of the time (.inter); `row`: the order of rows is the time")
    rating: str | None = Field(
        None, description="field of the rating (.inter); `rating` where there is one; `none`: no ratings"
    )
    title: str | None = Field(None, description=f"field of the title (.item); the first of {', '.join(TITLES)}")
    year: str | None = Field(
        None, description=f"field that tells apart items of one title; the first of {', '.join(YEARS)}"
    )
    genres: str | None = Field(None, description=f"field of the genres (.item); the first of {', '.join(GENRES)}")
    genre_separator: str | None = Field(
        None, min_length=1, description="between genres; where not given, |, ; or a comma if they hold it, else a space"
    )
    history: str | None = Field(
        None, description=f"field of the items before, of benchmark files; item_id_list, {', '.join(HISTORIES)}"
    )
    sequence_separator: str = Field(" ", min_length=1, description="between the tokens of a token_seq")
    separator: str = Field("\t", min_length=1, description="between fields, RecBole's field_separator")
    text: str | None = Field(None, description="field of further text (.item)")
    profile: str | None = Field(
        None, description="fields of a user's profile (.user), such as age,gender,occupation; the rank task shows them"
    )
    encoding: str = Field("utf-8", description="of files without a byte order mark, such as latin-1")


class Recbole(Source):
    """Reads a folder with an `.inter` and an `.item` file; any one of its files stands for the folder.

    Without an `.item` file, or without a title in it, an item's title is its id. Benchmark files (`x.train.inter`,
    `x.valid.inter`, `x.test.inter`) are the windows where they have a list of the items before (`item_id_list`). Where
    not, they say which interactions are held out (`--split provided`), each user's last ones or others; they may lack
    the time.
    """

    Params = RecboleParams
    paper = "Zhao et al., CIKM 2021"

    @classmethod
    def recognises(cls, path: Path) -> str:
        """An `.inter` file."""
        found = [path] if path.suffix in ATOMIC else matching(path, "*.inter") if path.is_dir() else []
        return f"{found[0].name} is an atomic file" if found else ""

    def files(self, path: Path) -> list[Path]:
        """The `.inter` file or files and, where there is one, the `.item` file; the `.user` file for profiles.

        Raises:
            UserError: the path is missing, or the folder holds no `.inter` file, or those of several datasets.
        """
        inter, item = self._located(path)
        return inter + ([item] if item else []) + self._user_files(inter)

    def suggestions(self, path: Path | None) -> Mapping[str, Any]:
        """Benchmark files stay split as they are."""
        assert path is not None  # `prepare` sees to it: needs_path
        inter, _ = self._located(path)
        return {"split": "provided"} if _split_of(inter[0]) else {}

    def read(self, path: Path | None, seed: int) -> RawData:
        """Read all files.

        Raises:
            UserError: missing files or fields, or files that cannot be read at all.
        """
        import polars as pl

        assert path is not None  # `prepare` sees to it: needs_path
        inter, item = self._located(path)
        splits = [SPLITS[split] for file in inter if (split := _split_of(file))]
        windows = bool(splits) and self._history(self._open(inter[0])) is not None
        reads = [self._windows(file) for file in inter] if windows else self._events(inter, bool(splits))
        named = [each.frame.select(pl.col("item_id").unique()) for each in reads]
        items, separator = ids_as_titles(pl.concat(named).collect().to_series()), None
        if item is not None:
            items, separator = self._items(item)
        users = [self._profiles(file) for file in self._user_files(inter)]
        return RawData(
            items=items.frame,
            events=None if windows else together(reads, splits),
            windows={s: windows_of(each) for s, each in zip(splits, reads, strict=True)} if windows else None,
            accounts=[*(each.account for each in [*reads, *users]), *items.accounts],
            genre_separator=separator,
            users=users[0].frame if users else None,
        )

    def write_example(self, folder: Path, interactions: pl.DataFrame, items: pl.DataFrame) -> Path:
        """One log and its items."""
        import polars as pl

        types = {"user_id": "token", "item_id": "token", "timestamp": "float", "rating": "float"}
        log = interactions.rename({name: f"{name}:{kind}" for name, kind in types.items()})
        log.write_csv(folder / f"{folder.name}.inter", separator="\t")
        named = {"item_id": "item_id:token", "title": "movie_title:token_seq", "genres": "class:token_seq"}
        table = items.with_columns(pl.col("genres").list.join(" ")).rename(named)
        table.write_csv(folder / f"{folder.name}.item", separator="\t")
        return folder

    def _located(self, path: Path) -> tuple[list[Path], Path | None]:
        """The `.inter` files of one dataset, those of benchmarks in order, and its `.item` file."""
        folder = path if existing(path).is_dir() else path.parent
        found = sorted(folder.glob("*.inter"))
        if not path.is_dir():
            found = [file for file in found if _dataset(file) == _dataset(path)] or [path]
        whole = [file for file in found if not _split_of(file)]
        inter = whole if whole and not _split_of(path) else [file for file in found if _split_of(file)]
        if len({_dataset(file) for file in inter}) != 1:
            names = ", ".join(file.name for file in inter) or "none"
            raise UserError(
                f"{path} must hold one .inter file, but holds {names}.", "Name the .inter file itself as PATH."
            )
        item = folder / f"{_dataset(inter[0])}.item"
        inter.sort(key=lambda file: list(SPLITS).index(_split_of(file) or "train"))
        return inter, item if item.is_file() else None

    def _user_files(self, inter: list[Path]) -> list[Path]:
        """The `.user` file beside the `.inter` files, where profiles are asked for."""
        if self.params.profile is None:
            return []
        return [existing_file(inter[0].parent / f"{_dataset(inter[0])}.user")]

    def _profiles(self, file: Path) -> Read:
        """Users with what some fields say of them: "age 24, occupation technician"."""
        import polars as pl

        table, fields = self._open(file), [each.strip() for each in self.params.profile.split(",")]
        require(table, {"user": self.params.user})
        for name in fields:
            require(table, {"profile": name})
        read = typed(table, {"user_id": Column(self.params.user, "id")})
        parts = [pl.format(f"{name} {{}}", pl.col(name)) for name in fields]
        profile = pl.concat_str(parts, separator=", ", ignore_nulls=True)
        frame = read.rows.select(user_id=pl.col(self.params.user).cast(pl.String), profile=profile)
        return Read(frame, read.account, read.rows)

    def _events(self, files: list[Path], split: bool) -> list[Read]:
        """Interactions of each file; what is split already needs no times."""
        p, tables = self.params, [self._open(file) for file in files]
        rating = None if p.rating == "none" else choose(tables[0], "rating", p.rating, ("rating",))
        told = "timestamp" in p.model_fields_set or any(p.timestamp in table.schema for table in tables)
        names = Names(p.user, p.item, p.timestamp if told or not split else None, rating)
        return in_order([interactions(table, names) for table in tables], names)

    def _windows(self, file: Path) -> Read:
        """Windows of one benchmark file: the items before, and the item itself."""
        p, table = self.params, self._open(file)
        history = self._history(table)
        assert history is not None  # of one file of the benchmark, so of all
        ordered = p.timestamp not in table.schema
        require(table, {"user": p.user, "item": p.item, "history": history})
        columns = {
            "user_id": Column(p.user, "id"),
            "item_id": Column(p.item, "id"),
            "history": Column(history, "list", separator=p.sequence_separator),
            "timestamp": Column(p.timestamp, "order" if ordered else "time"),
        }
        return typed(table, columns)

    def _history(self, table: Records) -> str | None:
        """The field of the items before, if there is one."""
        return choose(table, "history", self.params.history, (f"{self.params.item}_list", *HISTORIES))

    def _open(self, file: Path) -> Records:
        """Open an atomic file; the types of its header are dropped."""
        p = self.params
        return open_table(
            file, separator=p.separator, quote=None, encoding=p.encoding, header=lambda cell: cell.partition(":")[0]
        )

    def _items(self, file: Path) -> tuple[Items, str]:
        """Items, with the suffix that tells apart items of one title, and what separates their genres."""
        import polars as pl

        p, table = self.params, self._open(file)
        require(table, {"item": p.item})
        title = choose(table, "title", p.title, TITLES) or p.item
        year = choose(table, "year", p.year, YEARS)
        genres = choose(table, "genres", p.genres, GENRES)
        text = choose(table, "text", p.text, ())
        read = typed(table, {"item_id": Column(p.item, "id")})
        empty = pl.lit("")
        items = read.rows.select(
            item_id=pl.col(p.item),
            title=pl.col(title).fill_null(""),
            genres=pl.col(genres) if genres else empty,
            text=(pl.col(text) if text else empty).fill_null(""),
            suffix=pl.col(year) if year else pl.lit(None, dtype=pl.String),
        )
        found = separator_of(read.rows.select(genres).collect().to_series()) if genres else None
        return Items(items, [read.account]), p.genre_separator or found or p.sequence_separator


def _split_of(file: Path) -> str:
    """The split in the name of a benchmark file: `train` of x.train.inter; empty where there is none."""
    split = Path(file.stem).suffix.removeprefix(".")
    return split if split in SPLITS else ""


def _dataset(file: Path) -> str:
    """The dataset in a file's name: `x` of x.train.inter and x.item."""
    return file.stem.removesuffix(f".{_split_of(file)}") if _split_of(file) else file.stem


@hookimpl
def recalign_source() -> type[Source]:
    """Return the plugin class to recalign."""
    return Recbole
