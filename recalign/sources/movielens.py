"""MovieLens of every age: 100K (u.data), 1M and 10M (ratings.dat), 20M to 32M and the latest ones (ratings.csv)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recalign.api import RawData, Source, UserError, hookimpl
from recalign.sources.dumps import consumed, raw_events
from recalign.sources.reading import Column, existing_folder, open_table, typed
from recalign.sources.reading.compression import SUFFIXES

if TYPE_CHECKING:
    import polars as pl

GENRES = (
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir Horror Musical "
    "Mystery Romance Sci-Fi Thriller War Western"
).split()
"""Of the flags of u.item, in their order (u.genre)."""

RATING = "userId,movieId,rating,timestamp".split(",")
MOVIE = ["movieId", "title", "genres"]


@dataclass(frozen=True)
class Generation:
    """How a generation is written.

    Args:
        ratings: name of the file of ratings.
        movies: name of the file of movies.
        separator: of the ratings' fields.
        encodings: of the movies, of which the first that fits counts.
        header: whether the files have one.
        movie: columns of the movies.
        between: the separator of the movies' fields.
    """

    ratings: str
    movies: str
    separator: str
    between: str
    encodings: tuple[str, ...]
    header: bool
    movie: list[str]

    @property
    def genres(self) -> pl.Expr:
        """The genres of a movie: a text with bars, or a flag for each."""
        import polars as pl

        if "genres" in self.movie:
            return pl.col("genres").fill_null("").str.split("|")
        flags = [pl.when(pl.col(name) == "1").then(pl.lit(name)) for name in GENRES if name != "unknown"]
        return pl.concat_list(flags).list.drop_nulls()


LAYOUTS = (
    Generation(
        "u.data",
        "u.item",
        "\t",
        "|",
        ("utf-8", "latin-1"),
        False,
        ["movieId", "title", "release", "video release", "IMDb", *GENRES],
    ),
    Generation("ratings.dat", "movies.dat", "::", "::", ("utf-8", "latin-1"), False, MOVIE),
    Generation("ratings.csv", "movies.csv", ",", ",", ("utf-8", "latin-1"), True, MOVIE),
)


class MovieLens(Source):
    """Reads a folder as it is unpacked; which generation it is, its files tell.

    Titles keep their year, as in "Toy Story (1995)". "unknown" and "(no genres listed)" are no genres. Movies without
    a rating are left out.
    """

    paper = "Harper and Konstan, TiiS 2015"

    @classmethod
    def recognises(cls, path: Path) -> str:
        """The two files of one of the generations."""
        for layout in LAYOUTS:
            files = [_named(path, name) for name in (layout.ratings, layout.movies)]
            if path.is_dir() and all(files):
                return " and ".join(file.name for file in files if file)
        return ""

    def files(self, path: Path) -> list[Path]:
        """The ratings and the movies.

        Raises:
            UserError: no such folder, or one without the files of any generation.
        """
        return list(self._located(path)[1:])

    def read(self, path: Path | None, seed: int) -> RawData:
        """Read ratings and movies.

        Raises:
            UserError: missing files, or files that cannot be read at all.
        """
        import polars as pl

        assert path is not None  # `prepare` sees to it: needs_path
        layout, ratings, movies = self._located(path)
        named = None if layout.header else RATING
        events = typed(
            open_table(ratings, separator=layout.separator, columns=named, quote='"' if layout.header else None),
            {
                "user_id": Column("userId", "id"),
                "item_id": Column("movieId", "id"),
                "timestamp": Column("timestamp", "time"),
                "rating": Column("rating", "number"),
            },
        )
        table = open_table(
            movies,
            separator=layout.between,
            columns=None if layout.header else layout.movie,
            quote='"' if layout.header else None,
            encoding=_encoding(movies, layout.encodings),
        )
        ids = events.frame.select("item_id").collect().to_series()
        items = consumed(table, "movieId", {"title": pl.col("title"), "genres": layout.genres}, ids)
        return raw_events([events], items)

    def write_example(self, folder: Path, interactions: pl.DataFrame, items: pl.DataFrame) -> Path:
        """The two files of the latest generation."""
        import polars as pl

        ratings = {"user_id": "userId", "item_id": "movieId"}
        order = ("userId", "movieId", "rating", "timestamp")
        whole = interactions.rename(ratings).with_columns(pl.col("timestamp").cast(pl.Int64)).select(order)
        whole.write_csv(folder / "ratings.csv")
        movies = items.select("title", movieId="item_id", genres=pl.col("genres").list.join("|"))
        movies.select("movieId", "title", "genres").write_csv(folder / "movies.csv")
        return folder

    @staticmethod
    def _located(path: Path) -> tuple[Generation, Path, Path]:
        """The generation and its files."""
        existing_folder(path)
        for layout in LAYOUTS:
            ratings, movies = _named(path, layout.ratings), _named(path, layout.movies)
            if ratings and movies:
                return layout, ratings, movies
        pairs = ", or ".join(f"{layout.ratings} and {layout.movies}" for layout in LAYOUTS)
        held = ", ".join(sorted(each.name for each in path.iterdir())[:8]) or "nothing"
        raise UserError(f"{path} must hold {pairs}, but holds {held}.", "Name the folder that was unpacked.")


def _named(folder: Path, name: str) -> Path | None:
    """The file of a name, packed or not."""
    return next((folder / (name + end) for end in ("", *SUFFIXES) if (folder / (name + end)).is_file()), None)


def _encoding(file: Path, encodings: tuple[str, ...]) -> str:
    """The first encoding that the file's text is in."""
    from recalign.sources.reading.files import blocks

    try:
        b"".join(blocks(file, "utf-8")).decode()
    except UnicodeDecodeError:
        return encodings[-1]
    return encodings[0]


@hookimpl
def recalign_source() -> type[Source]:
    """Return the plugin class to recalign."""
    return MovieLens
