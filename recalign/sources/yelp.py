"""Yelp's open dataset: reviews and businesses as JSON lines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from recalign.api import Field, Params, RawData, Source, hookimpl
from recalign.sources.dumps import Items, consumed, found, ids_as_titles, matching, raw_events
from recalign.sources.reading import Column, existing_file, glimpse, open_table, require, typed

if TYPE_CHECKING:
    import polars as pl

REVIEWS, BUSINESSES = ("*review*.json", "*review*.jsonl"), ("*business*.json", "*business*.jsonl")
KEYS = dict.fromkeys(("user_id", "business_id", "stars", "date"), False)
BUSINESS_KEYS = dict.fromkeys(("business_id", "name", "city", "state", "categories"), False)


class YelpParams(Params):
    """What the files do not say themselves."""

    meta: Path | None = Field(None, description="file of businesses; the one beside the reviews, where it is there")


class Yelp(Source):
    """Reads `yelp_academic_dataset_review.json` and `yelp_academic_dataset_business.json`, packed or not.

    The rating is the stars, a genre a category; the city tells apart businesses of one name. Businesses without a
    review are left out.
    """

    Params = YelpParams
    paper = "https://business.yelp.com/data/resources/open-dataset/"

    @classmethod
    def recognises(cls, path: Path) -> str:
        """Reviews of businesses."""
        for file in matching(path, *REVIEWS):
            if {"user_id", "business_id", "stars"} <= set(glimpse(file)):
                return f"{file.name} has the business_id and stars of reviews"
        return ""

    def files(self, path: Path) -> list[Path]:
        """The file of reviews and, where there is one, that of businesses.

        Raises:
            UserError: missing files, or a folder without one file of reviews.
        """
        reviews = found(path, "reviews", *REVIEWS)
        if self.params.meta is not None:
            return [reviews, existing_file(self.params.meta)]
        return [reviews, *[file for file in matching(reviews.parent, *BUSINESSES) if file != reviews][:1]]

    def read(self, path: Path | None, seed: int) -> RawData:
        """Read reviews and businesses.

        Raises:
            UserError: missing files or keys, or files that cannot be read at all.
        """
        assert path is not None  # `prepare` sees to it: needs_path
        reviews, *businesses = self.files(path)
        table = open_table(reviews, keys=KEYS)
        require(table, {key: key for key in KEYS})
        columns = {
            "user_id": Column("user_id", "id"),
            "item_id": Column("business_id", "id"),
            "timestamp": Column("date", "time"),
            "rating": Column("stars", "number"),
        }
        events = typed(table, columns)
        ids = events.frame.select("item_id").collect().to_series()
        return raw_events([events], _businesses(businesses[0], ids) if businesses else ids_as_titles(ids))

    def write_example(self, folder: Path, interactions: pl.DataFrame, items: pl.DataFrame) -> Path:
        """Reviews and businesses."""
        import polars as pl

        date = pl.from_epoch(pl.col("timestamp").cast(pl.Int64)).dt.strftime("%Y-%m-%d %H:%M:%S")
        reviews = interactions.select("user_id", business_id="item_id", stars="rating", date=date)
        reviews.write_ndjson(folder / "yelp_academic_dataset_review.json")
        businesses = items.select(business_id="item_id", name="title", categories=pl.col("genres").list.join(", "))
        businesses.write_ndjson(folder / "yelp_academic_dataset_business.json")
        return folder


def _businesses(file: Path, ids: pl.Series) -> Items:
    """Businesses that are reviewed."""
    import polars as pl

    table = open_table(file, keys=BUSINESS_KEYS)
    require(table, {"business": "business_id", "name": "name"})

    def cell(name: str) -> pl.Expr:
        return pl.col(name) if name in table.schema else pl.lit(None, dtype=pl.String)

    place = pl.concat_str(cell("city"), cell("state"), separator=", ", ignore_nulls=True)
    genres = cell("categories").fill_null("").str.split(", ").list.eval(pl.element().filter(pl.element() != ""))
    return consumed(
        table, "business_id", {"title": pl.col("name"), "genres": genres, "text": place, "suffix": cell("city")}, ids
    )


@hookimpl
def recalign_source() -> type[Source]:
    """Return the plugin class to recalign."""
    return Yelp
