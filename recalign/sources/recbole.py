"""RecBole's atomic files: `.inter` and `.item`, tab-separated, with typed headers such as `user_id:token`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from recalign.api import Field, FileAccount, Params, RawData, Source, UserError, hookimpl
from recalign.sources.reading import Column, Records, existing, open_table, require, typed

if TYPE_CHECKING:
    import polars as pl

TITLES = ("title", "movie_title", "item_name", "name", "book_title", "game_title")
YEARS = ("release_year", "year", "publication_year")
GENRES = ("class", "genre", "genres", "categories", "category")


class RecboleParams(Params):
    """Which fields to read; names are given without their types."""

    user: str = Field("user_id", description="field of the user id (.inter)")
    item: str = Field("item_id", description="field of the item id (.inter and .item)")
    timestamp: str = Field("timestamp", description="field of the time (.inter)")
    rating: str | None = Field(
        None, description="field of the rating (.inter); `rating` where there is one; `none`: no ratings"
    )
    title: str | None = Field(None, description=f"field of the title (.item); the first of {', '.join(TITLES)}")
    year: str | None = Field(
        None, description=f"field that tells apart items of one title; the first of {', '.join(YEARS)}"
    )
    genres: str | None = Field(None, description=f"field of the genres (.item); the first of {', '.join(GENRES)}")
    genre_separator: str = Field(" ", min_length=1, description="between genres; RecBole's token_seq uses a space")
    text: str | None = Field(None, description="field of further text (.item)")
    encoding: str = Field("utf-8", description="of files without a byte order mark, such as latin-1")


class Recbole(Source):
    """Reads a folder with one `.inter` and one `.item` file, or a path to the `.inter` file beside its `.item` file.

    Without an `.item` file, or without a title in it, an item's title is its id.
    """

    Params = RecboleParams

    def files(self, path: Path) -> list[Path]:
        """The `.inter` file and, where there is one, the `.item` file.

        Raises:
            UserError: the path is missing, or the folder holds no or several `.inter` files.
        """
        existing(path)
        found = sorted(path.glob("*.inter")) if path.is_dir() else [path]
        if len(found) != 1:
            names = ", ".join(file.name for file in found) or "none"
            raise UserError(
                f"{path} must hold one .inter file, but holds {names}.", "Name the .inter file itself as PATH."
            )
        items = found[0].with_suffix(".item")
        return found + ([items] if items.is_file() else [])

    def read(self, path: Path | None, seed: int) -> RawData:
        """Read both files.

        Raises:
            UserError: missing files or fields, or files that cannot be read at all.
        """
        assert path is not None  # `prepare` sees to it: needs_path
        p, (inter, *rest) = self.params, self.files(path)
        table = self._open(inter)
        require(table, {"user": p.user, "item": p.item, "timestamp": p.timestamp})
        columns = {
            "user_id": Column(p.user, "id"),
            "item_id": Column(p.item, "id"),
            "timestamp": Column(p.timestamp, "time"),
        }
        rating = None if p.rating == "none" else _choose(table, "rating", p.rating, ("rating",))
        if rating:
            columns["rating"] = Column(rating, "number", "Or ignore the field: -p rating=none.")
        events, genres = typed(table, columns), p.genre_separator
        if not rest:
            return RawData(items=_ids_as_titles(events.frame), events=events.frame, accounts=[events.account])
        items, account = self._items(rest[0])
        accounts = [events.account, account]
        return RawData(items=items, events=events.frame, accounts=accounts, genre_separator=genres)

    def _open(self, file: Path) -> Records:
        """Open an atomic file; the types of its header are dropped."""
        return open_table(
            file, separator="\t", quote=None, encoding=self.params.encoding, header=lambda cell: cell.partition(":")[0]
        )

    def _items(self, file: Path) -> tuple[pl.LazyFrame, FileAccount]:
        """Items, with the suffix that tells apart items of one title, and the account of their file."""
        import polars as pl

        p, table = self.params, self._open(file)
        require(table, {"item": p.item})
        title = _choose(table, "title", p.title, TITLES) or p.item
        year = _choose(table, "year", p.year, YEARS)
        genres = _choose(table, "genres", p.genres, GENRES)
        text = _choose(table, "text", p.text, ())
        read = typed(table, {"item_id": Column(p.item, "id")})
        empty = pl.lit("")
        items = read.rows.select(
            item_id=pl.col(p.item),
            title=pl.col(title).fill_null(""),
            genres=pl.col(genres) if genres else empty,
            text=(pl.col(text) if text else empty).fill_null(""),
            suffix=pl.col(year) if year else pl.lit(None, dtype=pl.String),
        )
        return items, read.account


def _choose(table: Records, option: str, wanted: str | None, usual: tuple[str, ...]) -> str | None:
    """Return the field asked for (an error where it is missing), or the first of the usual ones that is there."""
    if wanted is not None:
        require(table, {option: wanted})
        return wanted
    return next((name for name in usual if name in table.schema), None)


def _ids_as_titles(events: pl.LazyFrame) -> pl.LazyFrame:
    """Items named by their ids, where nothing else is known of them."""
    import polars as pl

    genres = pl.lit([], dtype=pl.List(pl.String))
    item = pl.col("item_id").unique().cast(pl.String).sort()
    return events.select(item).select("item_id", title="item_id", genres=genres, text=pl.lit(""))


@hookimpl
def recalign_source() -> type[Source]:
    """Return the plugin class to recalign."""
    return Recbole
