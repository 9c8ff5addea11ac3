"""One table of interactions (csv, tsv, parquet or jsonl) and, if wanted, one of items; parameters name the columns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from recalign.api import Field, Params, RawData, Source, hookimpl
from recalign.sources.reading import existing_file, require, scan, typed

if TYPE_CHECKING:
    import polars as pl


class TableParams(Params):
    """Which columns to read."""

    user: str = Field("user_id", description="column of the user id")
    item: str = Field("item_id", description="column of the item id (in both tables)")
    timestamp: str = Field(
        "timestamp",
        description="column of the time (a number, date or ISO date-time); `row`: the order of rows is the time",
    )
    rating: str | None = Field(None, description="column of the rating; `rating` where there is one")
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
        None, min_length=1, max_length=1, description="of delimited files; by the suffix of the file"
    )


class Table(Source):
    """Reads any interaction table; `-p user=… -p item=… -p timestamp=…` name its columns."""

    Params = TableParams

    def files(self, path: Path) -> list[Path]:
        """The table of interactions and the table of items."""
        return [existing_file(path)] + ([existing_file(self.params.items)] if self.params.items else [])

    def read(self, path: Path | None, seed: int) -> RawData:
        """Read the tables.

        Raises:
            UserError: missing files or columns, unparseable rows.
        """
        assert path is not None  # `prepare` sees to it: needs_path
        p = self.params
        frame = scan(path, separator=p.separator)
        ordered = p.timestamp == "row"
        if ordered:
            frame = frame.with_row_index("row")
        require(frame, path, {"user": p.user, "item": p.item, "timestamp": p.timestamp})
        columns = {"user_id": (p.user, "id"), "item_id": (p.item, "id"), "timestamp": (p.timestamp, "time")}
        rating = p.rating or ("rating" if "rating" in frame.collect_schema().names() else None)
        if rating:
            require(frame, path, {"rating": rating})
            columns["rating"] = (rating, "number")
        events = typed(frame, path, columns, separator=p.separator)
        if p.items is None:
            items = self._items(frame)
            return RawData(items=items, events=events, items_per_event=True, genre_separator=p.genre_separator)
        items = scan(p.items, separator=p.separator)
        require(items, p.items, {"item": p.item, "title": p.title})
        typed(items, p.items, {"item_id": (p.item, "id")}, separator=p.separator)
        return RawData(items=self._items(items), events=events, genre_separator=p.genre_separator)

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
    """Hand over the source."""
    return Table
