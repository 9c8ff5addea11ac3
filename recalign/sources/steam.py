"""Steam: reviews of games (or the games that users own) and the games, as lines of Python literals or JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from recalign.api import Field, Params, RawData, Source, UserError, hookimpl
from recalign.sources.dumps import Items, consumed, found, ids_as_titles, matching, raw_events
from recalign.sources.reading import Column, existing_file, glimpse, open_table, require, typed
from recalign.sources.reading.texts import names, title

if TYPE_CHECKING:
    import polars as pl

REVIEWS, GAMES = ("*review*.json", "*review*.jsonl"), ("*game*.json", "*game*.jsonl")
KEYS = dict.fromkeys(("username", "user_id", "product_id", "date", "hours"), False)
GAME_KEYS = {**dict.fromkeys(("id", "title", "app_name", "release_date"), False), "genres": True, "tags": True}


class SteamParams(Params):
    """What the files do not say themselves."""

    meta: Path | None = Field(None, description="file of the games; steam_games beside the reviews, where it is there")
    encoding: str = Field("utf-8", description="encoding of files without a byte order mark, such as latin-1")


class Steam(Source):
    """Reads `steam_reviews.json` and `steam_games.json`, compressed or not.

    A user is a `username`, an item the `product_id` of a review, which is the `id` of a game; the rating is the hours
    played (`--relevance rating` makes gains of them). Genres are a game's genres, or its tags where it has none; of
    games with one title the year of release tells which. Games that nobody reviewed, and reviews of games without a
    title, are left out and counted.
    """

    Params = SteamParams
    paper = "Kang and McAuley, ICDM 2018; Pathak et al., SIGIR 2017"

    @classmethod
    def recognises(cls, path: Path) -> str:
        """Reviews with hours and a product."""
        for file in matching(path, *REVIEWS):
            if {"product_id", "hours"} <= set(glimpse(file)):
                return f"{file.name} has the hours and product_id of reviews"
        return ""

    def files(self, path: Path) -> list[Path]:
        """The file of reviews and, where there is one, that of games.

        Raises:
            UserError: missing files, or a folder without one file of reviews.
        """
        reviews = found(path, "reviews", *REVIEWS)
        if self.params.meta is not None:
            return [reviews, existing_file(self.params.meta)]
        return [reviews, *[file for file in matching(reviews.parent, *GAMES) if file != reviews][:1]]

    def read(self, path: Path | None, seed: int) -> RawData:
        """Read reviews and games.

        Raises:
            UserError: missing files or keys, or files that cannot be read at all.
        """
        assert path is not None  # `prepare` sees to it: needs_path
        reviews, *games = self.files(path)
        table = open_table(reviews, encoding=self.params.encoding, keys=KEYS)
        user = "username" if "username" in table.schema else "user_id"
        for key in (user, "product_id", "date"):
            if key not in table.schema:
                raise UserError(f"{reviews} has no '{key}': its keys are {', '.join(table.schema)}.", "Name reviews.")
        columns = {
            "user_id": Column(user, "id"),
            "item_id": Column("product_id", "id"),
            "timestamp": Column("date", "time"),
        }
        if "hours" in table.schema:
            columns["rating"] = Column("hours", "number")
        events = typed(table, columns)
        ids = events.frame.select("item_id").collect().to_series()
        return raw_events([events], self._items(games[0], ids) if games else ids_as_titles(ids))

    def _items(self, file: Path, ids: pl.Series) -> Items:
        """Games that are reviewed."""
        import polars as pl

        table = open_table(file, encoding=self.params.encoding, keys=GAME_KEYS)
        require(table, {"id": "id"})
        has = [name for name in ("title", "app_name") if name in table.schema]
        kinds = [names(pl.col(name)) for name in ("genres", "tags") if name in table.schema]
        none = pl.lit([], dtype=pl.List(pl.String))
        genres = none if not kinds else pl.when(kinds[0].list.len() > 0).then(kinds[0]).otherwise(kinds[-1])
        year = pl.col("release_date").str.extract(r"(\d{4})") if "release_date" in table.schema else pl.lit(None)
        cells = {
            "title": title(pl.coalesce(has) if has else pl.lit("")),
            "genres": genres,
            "suffix": year.cast(pl.String),
        }
        return consumed(table, "id", cells, ids)


@hookimpl
def recalign_source() -> type[Source]:
    """Return the plugin class to recalign."""
    return Steam
