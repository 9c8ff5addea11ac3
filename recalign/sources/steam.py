"""Steam: reviews of games, or the games that users own, and the games, as lines of Python literals or JSON."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from recalign.api import Field, Params, RawData, Source, UserError, hookimpl
from recalign.sources.dumps import Items, consumed, found, ids_as_titles, matching, raw_events
from recalign.sources.reading import Column, Elements, Records, existing_file, glimpse, open_table, require, typed
from recalign.sources.reading.texts import names, title

if TYPE_CHECKING:
    import polars as pl

REVIEWS = ("*review*.json", "*review*.jsonl", "*users_items*.json", "*users_items*.jsonl")
GAMES = ("*game*.json", "*game*.jsonl")
LISTS = {"reviews": ("item_id", "posted"), "items": ("item_id", "item_name", "playtime_forever")}
"""Of the Australian files, whose records are users: the list of a user's reviews or games, and keys of its objects."""
FORMS: dict[str, tuple[str, str | None, str | None]] = {
    "product_id": ("product_id", "date", "hours"),
    "posted": ("item_id", "posted", None),
    "playtime_forever": ("item_id", None, "playtime_forever"),
}
"""Key that only records of this form have -> the keys of the item, the time and the rating."""
KEYS = {
    **dict.fromkeys(("username", "user_id", "product_id", "date", "hours"), False),
    **dict.fromkeys(LISTS, True),
}
GAME_KEYS = {**dict.fromkeys(("id", "title", "app_name", "release_date"), False), "genres": True, "tags": True}
YEAR = r"(\d{4})"
YEARLESS = "Or name the year of days without one: -p year=2016."
MINUTES = 60.0


class SteamParams(Params):
    """What the files do not say themselves."""

    meta: Path | None = Field(None, description="file of the games; steam_games beside the reviews, where it is there")
    year: int | None = Field(
        None,
        description='year of reviews that name none ("Posted July 3."), which Steam leaves out of those of the year in '
        "which one looks; the one after the last that the file names where not given",
    )
    encoding: str = Field("utf-8", description="of files without a byte order mark, such as latin-1")


class Steam(Source):
    """Reads `steam_reviews.json`, or Australia's user reviews or users' items, and `steam_games.json`.

    A user is a `username` or `user_id`, an item the `product_id` of a review, which is the `id` of a game; the rating
    is the hours played (`--relevance rating` makes gains of them). The Australian files have a line a user, with a list
    of reviews, whose days are their times, or of the games owned, whose hours are known, but no times (`--split user`).
    Genres are a game's genres, or its tags where it has none; of games with one title the year of release tells which.
    Games that nobody reviewed, and reviews of games without a title, are left out and counted.
    """

    Params = SteamParams
    paper = "Kang and McAuley, ICDM 2018; Pathak et al., SIGIR 2017"

    @classmethod
    def recognises(cls, path: Path) -> str:
        """Reviews with hours and a product, or users with a list of reviews or games."""
        for file in matching(path, *REVIEWS):
            keys = set(glimpse(file))
            if {"product_id", "hours"} <= keys:
                return f"{file.name} has the hours and product_id of reviews"
            listed = next((name for name in LISTS if name in keys and "user_url" in keys), None)
            if listed:
                return f"{file.name} has the {listed} of users"
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
        import polars as pl

        assert path is not None  # `prepare` sees to it: needs_path
        reviews, *games = self.files(path)
        table = open_table(reviews, encoding=self.params.encoding, keys=KEYS)
        listed = next((name for name in LISTS if name in table.schema), None)
        table = table if listed is None else self._taken_out(table, listed)
        events = typed(table, _columns(table))
        if "timestamp" not in events.frame.collect_schema():
            events = replace(events, frame=events.frame.with_columns(timestamp=pl.lit(0.0)))
        if "playtime_forever" in table.schema:
            events = replace(events, frame=events.frame.with_columns(pl.col("rating") / MINUTES))
        if not games and "item_name" in table.schema:
            named = events.rows.select("item_id", title=title(pl.col("item_name")), genres=pl.lit(""))
            return RawData(named, events.frame, accounts=[events.account], partial=True, items_per_event=True)
        ids = events.frame.select("item_id").collect().to_series()
        return raw_events([events], self._items(games[0], ids) if games else ids_as_titles(ids))

    def write_example(self, folder: Path, interactions: pl.DataFrame, items: pl.DataFrame) -> Path:
        """Reviews and games; the hours played are the ratings."""
        import polars as pl

        date = pl.from_epoch(pl.col("timestamp").cast(pl.Int64)).dt.strftime("%Y-%m-%d %H:%M:%S")
        reviews = interactions.select(username="user_id", product_id="item_id", hours="rating", date=date)
        reviews.write_ndjson(folder / "steam_reviews.json")
        items.select("title", "genres", id="item_id").write_ndjson(folder / "steam_games.json")
        return folder

    def _taken_out(self, table: Records, listed: str) -> Records:
        """The elements of the lists of a table whose records are users; days have a year."""
        import polars as pl

        users = [name for name in ("username", "user_id") if name in table.schema]
        elements = Elements(table, listed, LISTS[listed], around=users)
        if "posted" not in elements.schema:
            return elements
        day, year = pl.col("posted").str.strip_prefix("Posted ").str.strip_suffix("."), self.params.year
        if year is None:
            found = [
                batch.frame["posted"].str.extract(YEAR).cast(pl.Int64).max() for batch in elements.batches(["posted"])
            ]
            year = max((each for each in found if isinstance(each, int)), default=None)
            year = None if year is None else year + 1
        bare = day.str.contains(r"^\p{L}+ \d{1,2}$") & pl.lit(year is not None)
        dated = pl.when(bare).then(day + f", {year}").otherwise(day)
        return Elements(table, listed, LISTS[listed], around=users, cells={"posted": dated})

    def _items(self, file: Path, ids: pl.Series) -> Items:
        """Games that are reviewed."""
        import polars as pl

        table = open_table(file, encoding=self.params.encoding, keys=GAME_KEYS)
        require(table, {"id": "id"})
        has = [name for name in ("title", "app_name") if name in table.schema]
        kinds = [names(pl.col(name)) for name in ("genres", "tags") if name in table.schema]
        none = pl.lit([], dtype=pl.List(pl.String))
        genres = none if not kinds else pl.when(kinds[0].list.len() > 0).then(kinds[0]).otherwise(kinds[-1])
        year = pl.col("release_date").str.extract(YEAR) if "release_date" in table.schema else pl.lit(None)
        cells = {
            "title": title(pl.coalesce(has) if has else pl.lit("")),
            "genres": genres,
            "suffix": year.cast(pl.String),
        }
        return consumed(table, "id", cells, ids)


def _columns(table: Records) -> dict[str, Column]:
    """What is read of reviews, or of the games that a user owns.

    Raises:
        UserError: a key is missing.
    """
    item, time, rating = next((form for key, form in FORMS.items() if key in table.schema), FORMS["product_id"])
    user = "username" if "username" in table.schema else "user_id"
    for key in (user, item, time):
        if key is not None and key not in table.schema:
            raise UserError(f"{table.file} has no '{key}': its keys are {', '.join(table.schema)}.", "Name reviews.")
    columns = {"user_id": Column(user, "id"), "item_id": Column(item, "id")}
    if time is not None:
        columns["timestamp"] = Column(time, "time", YEARLESS)
    if rating in table.schema:
        columns["rating"] = Column(rating, "number")
    return columns


@hookimpl
def recalign_source() -> type[Source]:
    """Return the plugin class to recalign."""
    return Steam
