"""Goodreads (the UCSD Book Graph): interactions or reviews, books, their works and genres, as JSON lines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from recalign.api import Field, Params, RawData, Source, hookimpl
from recalign.sources.dumps import Items, consumed, found, ids_as_titles, matching, raw_events
from recalign.sources.reading import Column, Read, existing_file, glimpse, open_table, require, typed
from recalign.sources.reading.texts import listed, title

if TYPE_CHECKING:
    import polars as pl

INTERACTIONS = ("goodreads_interactions*.json", "goodreads_reviews*.json", "*interactions*.jsonl")
BOOKS, GENRES = ("goodreads_books*.json",), ("goodreads_book_genres*.json",)
KEYS = dict.fromkeys(("user_id", "book_id", "rating", "date_added"), False)
BOOK_KEYS = {
    **dict.fromkeys(("book_id", "work_id", "title", "title_without_series", "ratings_count", "description"), False),
    **dict.fromkeys(("publication_year",), False),
    "popular_shelves": True,
}
STATES = (
    r"(?i)^(to-?read|currently-reading|read|re-?read|wish-?list|own|owned|favou?rites?|default|library|kindle|e-?books?|"
    r"audio-?books?|audible|my-.*|books-i-.*|all-.*|i-own|owned-.*|to-buy|.*-to-read|tbr|dnf|did-not-finish|abandoned|"
    r"unfinished|maybe|series|book-club|shelfari-.*|.*\d{4}.*|arc|netgalley|paperbacks?|hardcovers?)$"
)
"""Shelves that say what a reader did, not what a book is."""


class GoodreadsParams(Params):
    """What the files do not say themselves."""

    meta: Path | None = Field(None, description="file of the books; goodreads_books* beside the interactions")
    genres: Path | None = Field(
        None, description="file of genres (goodreads_book_genres_initial*); the one beside the interactions"
    )
    by: Literal["edition", "work"] = Field(
        "edition", description="what an item is: an edition (book_id), or a work (work_id), titled by its first edition"
    )
    shelves: int = Field(
        5, ge=0, description="number of the most popular shelves that are genres of a book, where no file of genres is"
    )


class Goodreads(Source):
    """Reads `goodreads_interactions_*.json.gz` (or reviews) and `goodreads_books_*.json.gz`.

    The time is `date_added`. A rating of 0 is none. Genres come from `goodreads_book_genres_initial.json.gz`, or from
    the shelves that most readers have put a book on, without those that tell of reading, such as to-read. Books that no
    interaction names are left out; interactions with books that the file lacks are left out and counted.
    """

    Params = GoodreadsParams
    paper = "Wan and McAuley, RecSys 2018; Wan et al., ACL 2019"

    @classmethod
    def recognises(cls, path: Path) -> str:
        """Interactions with a date_added and a book."""
        for file in matching(path, *INTERACTIONS):
            if {"user_id", "book_id", "date_added"} <= set(glimpse(file)):
                return f"{file.name} has the book_id and date_added of interactions"
        return ""

    def files(self, path: Path) -> list[Path]:
        """The file of interactions and, where they are there, those of books and genres.

        Raises:
            UserError: missing files, or a folder without one file of interactions.
        """
        return [file for file in self._located(path) if file is not None]

    def read(self, path: Path | None, seed: int) -> RawData:
        """Read interactions, books and genres.

        Raises:
            UserError: missing files or keys, or files that cannot be read at all.
        """
        import polars as pl

        assert path is not None  # `prepare` sees to it: needs_path
        interactions, books, genres = self._located(path)
        table = open_table(interactions, keys=KEYS)
        require(table, {key: key for key in KEYS})
        columns = {
            "user_id": Column("user_id", "id"),
            "item_id": Column("book_id", "id"),
            "timestamp": Column("date_added", "time"),
            "rating": Column("rating", "number"),
        }
        read = typed(table, columns)
        rated = read.frame.with_columns(pl.when(pl.col("rating") != 0).then("rating").alias("rating"))
        events = Read(rated, read.account, read.rows)
        ids = events.frame.select("item_id").collect().to_series()
        if books is None:
            return raw_events([events], ids_as_titles(ids))
        items = self._books(books, ids)
        if genres is not None:
            items = _with_genres(items, genres, ids)
        if self.params.by == "work":
            events, items = _by_work(events, items)
        return raw_events([events], Items(items.frame.drop("work_id"), items.accounts))

    def write_example(self, folder: Path, interactions: pl.DataFrame, items: pl.DataFrame) -> Path:
        """Interactions and books, whose genres are shelves."""
        import polars as pl

        added = pl.from_epoch(pl.col("timestamp").cast(pl.Int64)).dt.strftime("%a %b %d %H:%M:%S +0000 %Y")
        log = interactions.select("user_id", "rating", book_id="item_id", date_added=added)
        log.write_ndjson(folder / "goodreads_interactions_example.json")
        shelves = pl.col("genres").list.eval(pl.struct(pl.lit("9").alias("count"), pl.element().alias("name")))
        books = items.select("title", book_id="item_id", popular_shelves=shelves)
        books.write_ndjson(folder / "goodreads_books_example.json")
        return folder

    def _located(self, path: Path) -> tuple[Path, Path | None, Path | None]:
        """The files of interactions, books and genres."""
        interactions = found(path, "interactions", *INTERACTIONS)
        given = {"meta": self.params.meta, "genres": self.params.genres}
        beside = {"meta": matching(interactions.parent, *BOOKS), "genres": matching(interactions.parent, *GENRES)}
        books, genres = (
            existing_file(file) if file is not None else next(iter(beside[name]), None) for name, file in given.items()
        )
        return interactions, books, genres

    def _books(self, file: Path, ids: pl.Series) -> Items:
        """Books that are read, with the work that each is an edition of."""
        import polars as pl

        table, most = open_table(file, keys=BOOK_KEYS), self.params.shelves
        require(table, {"book": "book_id", "title": "title"})

        def cell(name: str) -> pl.Expr:
            return pl.col(name) if name in table.schema else pl.lit(None, dtype=pl.String)

        shelves = cell("popular_shelves").map_elements(lambda text: _shelves(text, most), pl.List(pl.String))
        cells = {
            "title": title(pl.col("title")),
            "genres": shelves.fill_null([]),
            "text": cell("description").fill_null(""),
            "suffix": cell("publication_year"),
            "work_id": cell("work_id"),
        }
        return consumed(table, "book_id", cells, ids)


def _shelves(text: str, most: int) -> list[str]:
    """The most popular shelves, without those that tell of reading."""
    shelves: Any = listed(text)
    if not isinstance(shelves, list):
        return []
    names = [str(shelf["name"]) for shelf in shelves if isinstance(shelf, dict) and "name" in shelf]
    return [name for name in names if not re.match(STATES, name)][:most]


def _with_genres(items: Items, file: Path, ids: pl.Series) -> Items:
    """Take the genres from the file of genres, in the order of how many readers agree."""
    import polars as pl

    table = open_table(file, keys={"book_id": False, "genres": True})
    require(table, {"book": "book_id", "genres": "genres"})
    told = consumed(table, "book_id", {"genres": pl.col("genres").map_elements(_voted, pl.List(pl.String))}, ids)
    genres = told.frame.unique("item_id", keep="first")
    frame = items.frame.drop("genres").join(genres, on="item_id", how="left", maintain_order="left")
    return Items(frame, [*items.accounts, *told.accounts])


def _voted(text: str) -> list[str]:
    """Names of genres, by their votes."""
    votes: Any = listed(text)
    return sorted(votes, key=lambda name: -float(votes[name] or 0)) if isinstance(votes, dict) else []


def _by_work(events: Read, items: Items) -> tuple[Read, Items]:
    """Editions of a work become one item, which the first of them describes."""
    import polars as pl

    edition = pl.format("edition {}", "item_id")  # no number of a work
    frame = items.frame.with_columns(work=pl.coalesce("work_id", edition)).unique("item_id", keep="first").collect()
    read = events.frame.with_columns(pl.col("item_id").cast(pl.String))
    read = read.join(frame.lazy().select("item_id", "work"), on="item_id", how="left", maintain_order="left")
    read = read.with_columns(item_id=pl.coalesce("work", edition).cast(pl.Categorical)).drop("work")
    merged = Read(read.collect().lazy(), events.account, events.rows)
    catalogue = frame.with_columns(item_id="work").drop("work").unique("item_id", keep="first", maintain_order=True)
    return merged, Items(catalogue.lazy(), items.accounts)


@hookimpl
def recalign_source() -> type[Source]:
    """Return the plugin class to recalign."""
    return Goodreads
