"""One table of interactions (csv, json, parquet, ...) and, if wanted, one of items; parameters name the columns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from recalign.api import Field, Params, RawData, Source, hookimpl
from recalign.sources.interactions import Names, interactions
from recalign.sources.reading import Column, Read, Records, existing_file, glimpse, open_table, require, typed
from recalign.sources.reading.sequences import Sequences

if TYPE_CHECKING:
    import polars as pl


NONE = "none"


class TableParams(Params):
    """Which columns to read."""

    user: str = Field("user_id", description="column of the user id")
    item: str = Field("item_id", description="column of the item id (in both tables)")
    timestamp: str = Field(
        "timestamp",
        description="column of the time (a number, date or date-time); `row`: the order of rows, or of a user's list",
    )
    rating: str | None = Field(
        None, description="column of the rating; `rating` where there is one; `none`: there are no ratings"
    )
    rows: Literal["interaction", "user"] | None = Field(
        None,
        description="what a row is: an interaction, or a user with lists, oldest first; by the item column's type "
        "where not given. In text without a header a line may be `user item item item`",
    )
    items: Path | None = Field(
        None, description="table of items; without it, item columns are looked for among the interactions"
    )
    title: str = Field("title", description="column of the title; without such a column, the id is the title")
    genres: str = Field(
        "genres", description="column of the genres, if there is one: a list, a list as text, or text with separators"
    )
    genre_separator: str | None = Field(
        None, min_length=1, description="between genres in text; found over the whole column where not given"
    )
    text: str = Field("text", description="column of further text, if there is one")
    suffix: str = Field("year", description="column that tells apart items of one title, if there is one")
    separator: str | None = Field(
        None, min_length=1, description="separator of delimited files, such as ; or ::; by the suffix of the file"
    )
    quote: str = Field(
        '"', description="quotation mark of delimited files; `none`: quotation marks are plain text, not syntax"
    )
    escape: str | None = Field(
        None, min_length=1, max_length=1, description="character that takes the meaning of the next one, such as \\"
    )
    encoding: str = Field("utf-8", description="encoding of text files without a byte order mark, such as latin-1")
    columns: str | None = Field(
        None, description="names of the columns of a file without a header: user_id,item_id,rating,timestamp"
    )
    item_columns: str | None = Field(None, description="the same for the table of items")


class Table(Source):
    """Reads any interaction table; `-p user=… -p item=… -p timestamp=…` name its columns.

    Delimited text, JSON lines, JSON arrays, Python literals, Parquet and Arrow, gzip and zstd. Times
    are seconds, milliseconds, microseconds or nanoseconds, as their size tells, or dates and date-times.
    """

    Params = TableParams
    general: ClassVar[bool] = True

    @classmethod
    def recognises(cls, path: Path) -> str:
        """A file with the columns that are read if none is named."""
        usual = ("user_id", "item_id", "timestamp")
        fits = path.is_file() and set(usual) <= set(glimpse(path))
        return f"{path.name} has the columns {', '.join(usual)}" if fits else ""

    def files(self, path: Path) -> list[Path]:
        """The table of interactions and the table of items."""
        return [existing_file(path)] + ([existing_file(self.params.items)] if self.params.items else [])

    def read(self, path: Path | None, seed: int) -> RawData:
        """Read the tables.

        Raises:
            UserError: missing files or columns, or files that cannot be read at all.
        """
        import polars as pl

        assert path is not None  # `prepare` sees to it: needs_path
        p = self.params
        table = self._open(path, p.columns)
        rating = p.rating or ("rating" if "rating" in table.schema else NONE)
        names = Names(p.user, p.item, p.timestamp, None if rating == NONE else rating)
        events = interactions(table, names, per_user=None if p.rows is None else p.rows == "user")
        if p.items is None:
            rows = events.rows  # read again, unless the ids are all that the table tells of its items
            if not {p.title, p.genres, p.text, p.suffix} & set(rows.collect_schema()):
                rows = events.frame.select(pl.col("item_id").alias(p.item))
            return RawData(
                items=self._items(rows),
                events=events.frame,
                accounts=[events.account],
                items_per_event=True,
                genre_separator=p.genre_separator,
            )
        read = self._read_items(p.items)
        return RawData(
            items=self._items(read.rows),
            events=events.frame,
            accounts=[events.account, read.account],
            genre_separator=p.genre_separator,
        )

    def write_example(self, folder: Path, interactions: pl.DataFrame, items: pl.DataFrame) -> Path:
        """One table, the columns of an item in each of its interactions."""
        import polars as pl

        told = items.with_columns(pl.col("genres").list.join("|"))
        interactions.join(told, on="item_id", how="left", maintain_order="left").write_csv(folder / "interactions.csv")
        return folder / "interactions.csv"

    def _open(self, file: Path, columns: str | None) -> Records:
        """Open one of the tables."""
        p = self.params
        if p.rows == "user" and columns:
            return Sequences(existing_file(file), columns.split(","), p.separator or " ", p.encoding)
        return open_table(
            file,
            separator=p.separator,
            columns=columns.split(",") if columns else None,
            quote=None if p.quote == NONE else p.quote,
            escape=p.escape,
            encoding=p.encoding,
        )

    def _read_items(self, file: Path) -> Read:
        """Read the table of items."""
        p = self.params
        table = self._open(file, p.item_columns)
        require(table, {"item": p.item, "title": p.title})
        return typed(table, {"item_id": Column(p.item, "id")})

    def _items(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Items from whatever item columns a table has."""
        import polars as pl

        p, schema = self.params, frame.collect_schema()
        columns = {name: getattr(p, name) for name in ("title", "genres", "text", "suffix")}
        cells = {
            name: pl.col(column) if schema[column].is_nested() else pl.col(column).cast(pl.String)
            for name, column in columns.items()
            if column in schema
        }
        item_id = pl.col(p.item).cast(pl.String)
        return frame.select(item_id=item_id, **{"title": item_id, **cells})


@hookimpl
def recalign_source() -> type[Source]:
    """Return the plugin class to recalign."""
    return Table
