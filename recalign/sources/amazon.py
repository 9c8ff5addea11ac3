"""Amazon reviews of 2014, 2018 and 2023: reviews, ratings or benchmark splits, and the metadata of their items."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recalign.api import Field, Params, RawData, Source, UserError, hookimpl
from recalign.sources.dumps import Items, consumed, ids_as_titles, matching, raw_events, together, windows_of
from recalign.sources.reading import (
    Column,
    Kind,
    Read,
    Records,
    choose,
    existing,
    existing_file,
    glimpse,
    open_table,
    require,
    typed,
)
from recalign.sources.reading.compression import bare
from recalign.sources.reading.files import blocks
from recalign.sources.reading.texts import as_json, names, prose, title

if TYPE_CHECKING:
    import polars as pl

USERS, ITEMS = ("user_id", "reviewerID"), ("parent_asin", "asin")
TIMES, RATINGS = ("timestamp", "unixReviewTime"), ("rating", "overall")
KEYS = dict.fromkeys((*USERS, *ITEMS, *TIMES, *RATINGS), False)
GENRES, TEXTS = ("categories", "category"), ("description",)
META_KEYS = {**dict.fromkeys((*ITEMS, "title", "main_category"), False), **dict.fromkeys((*GENRES, *TEXTS), True)}
REVIEWS = ("*.json", "*.jsonl", "*.csv", "*.parquet")
SPLITS = ("train", "valid", "test")
RATINGS_ONLY = {True: "asin,user_id,rating,timestamp", False: "user_id,asin,rating,timestamp"}
LOOKED_AT = 1000  # ratings
ASIN = 10
"""Characters of an item's id; reviewers' have more."""


class AmazonParams(Params):
    """What the files do not say themselves."""

    meta: Path | None = Field(
        None, description="file of the items' metadata; meta_NAME beside the reviews, where it is there"
    )
    encoding: str = Field("utf-8", description="of files without a byte order mark, such as latin-1")


class Amazon(Source):
    """Reads the dumps of three generations, as they are downloaded.

    - 2014 and 2018: reviews as JSON lines, ratings alone as CSV without a header, metadata as Python literals (which
      are parsed, never evaluated) or JSON lines.
    - 2023: reviews and metadata as JSON lines or Parquet; an item is a `parent_asin`. The benchmark CSVs
      `NAME.train.csv`, `NAME.valid.csv` and `NAME.test.csv` belong together: with a `history` (`last_out_w_his`,
      `timestamp_w_his`) their rows are the windows, without one (`last_out`, `timestamp`) they say what each
      interaction is for.

    Genres are the categories. Tags and entities of web pages are taken out of titles and categories. Items without a
    title, such as those whose title is the fragment of a script, are left out with their interactions, and counted. The
    catalogue holds the items that are reviewed.
    """

    Params = AmazonParams
    paper = "He and McAuley, WWW 2016; Ni et al., EMNLP 2019; Hou et al., 2024 (arXiv:2403.03952)"

    @classmethod
    def recognises(cls, path: Path) -> str:
        """Reviews with the keys of one of the generations, or ratings without a header beside metadata."""
        files = matching(path, *REVIEWS)
        for file in [each for each in files if not _is_meta(each)][:3]:
            columns = glimpse(file)
            if {"reviewerID", "asin"} <= set(columns) or {"user_id", "parent_asin"} <= set(columns):
                return f"{file.name} has the keys of reviews"
            if any(map(_is_meta, files)) and _is_rating(columns):
                return f"{file.name} has ratings, beside metadata"
        return ""

    def files(self, path: Path) -> list[Path]:
        """The files of interactions and, last, that of the metadata, if there is one.

        Raises:
            UserError: missing files, or a folder that holds no reviews.
        """
        reviews, meta = self._located(path)
        return [*reviews, *([meta] if meta else [])]

    def suggestions(self, path: Path | None) -> Mapping[str, Any]:
        """Ready-made splits stay what they are."""
        assert path is not None  # `prepare` sees to it: needs_path
        reviews, _ = self._located(path)
        return {"split": "provided"} if all(map(_split_of, reviews)) else {}

    def read(self, path: Path | None, seed: int) -> RawData:
        """Read interactions and metadata.

        Raises:
            UserError: missing files or columns, or files that cannot be read at all.
        """
        assert path is not None  # `prepare` sees to it: needs_path
        reviews, meta = self._located(path)
        splits = [split for file in reviews if (split := _split_of(file))]
        if splits and "history" in glimpse(reviews[0]):
            return self._windows(reviews, meta)
        reads = [self._events(file) for file in reviews]
        ids = together(reads).select("item_id").collect().to_series()
        return raw_events(reads, self._items(meta, ids), splits)

    def write_example(self, folder: Path, interactions: pl.DataFrame, items: pl.DataFrame) -> Path:
        """Reviews and metadata of the latest generation; times are in milliseconds."""
        import polars as pl

        milliseconds = (pl.col("timestamp") * 1000).cast(pl.Int64)
        reviews = interactions.select("user_id", "rating", parent_asin="item_id", timestamp=milliseconds)
        reviews.write_ndjson(folder / "Example.jsonl")
        items.select("title", parent_asin="item_id", categories="genres").write_ndjson(folder / "meta_Example.jsonl")
        return folder

    def _located(self, path: Path) -> tuple[list[Path], Path | None]:
        """Files of interactions, in the order of their splits where they are splits, and the file of the metadata."""
        files = matching(existing(path), *REVIEWS)
        if path.is_dir():
            reviews = [file for file in files if not _is_meta(file)]
            metas = [file for file in files if _is_meta(file)]
        else:
            reviews = [path]
            if split := _split_of(path):
                names = [path.name.replace(f".{split}.", f".{other}.") for other in SPLITS]
                reviews = [existing_file(path.with_name(name)) for name in names]
            beside = [file for file in matching(path.parent, *REVIEWS) if _is_meta(file)]
            metas = [file for file in beside if _topic(file) == _topic(path)]
        topics = {_topic(file) for file in reviews if file.suffix != ".parquet"}  # whose parts have numbers
        clear = self.params.meta is not None or len(metas) <= 1
        if not reviews or len(topics) > 1 or not clear:
            held = ", ".join(file.name for file in (reviews if clear else metas)) or "none"
            raise UserError(
                f"{path} must hold the {'reviews' if clear else 'metadata'} of one category, but holds {held}.",
                "Name the file of reviews as PATH, and that of metadata with --meta FILE.",
            )
        meta = existing_file(self.params.meta) if self.params.meta else next(iter(metas), None)
        return sorted(reviews, key=lambda file: (SPLITS.index(_split_of(file) or "train"), file)), meta

    def _open(self, file: Path, keys: dict[str, bool]) -> Records:
        """Open a file; ratings without a header are given one."""
        first = glimpse(file)
        header = RATINGS_ONLY[_item_first(file)] if _is_rating(first) else None
        columns = header.split(",") if header else None
        return open_table(file, encoding=self.params.encoding, keys=keys, columns=columns)

    def _events(self, file: Path) -> Read:
        """Interactions of one file."""
        table = self._open(file, KEYS)
        return typed(table, _columns(table))

    def _windows(self, reviews: list[Path], meta: Path | None) -> RawData:
        """Windows of the benchmark's splits: the history and what follows it."""
        import polars as pl

        windows, accounts = {}, []
        for file in reviews:
            table = self._open(file, {})
            require(table, {"history": "history"})
            read = typed(table, {**_columns(table), "history": Column("history", "list", separator=" ")})
            windows[_split_of(file) or ""] = windows_of(read)
            accounts.append(read.account)
        ids = pl.concat([each.select(pl.col("item_ids").explode().unique()) for each in windows.values()])
        items = self._items(meta, ids.collect().to_series())
        return RawData(items.frame, windows=windows, accounts=[*accounts, *items.accounts], partial=True)

    def _items(self, meta: Path | None, ids: pl.Series) -> Items:
        """What the metadata tell of the items that are reviewed."""
        import polars as pl

        if meta is None:
            return ids_as_titles(ids)
        table = self._open(meta, META_KEYS)
        item = choose(table, "item", None, ITEMS)
        genres, text = choose(table, "genres", None, GENRES), choose(table, "text", None, TEXTS)
        require(table, {"item": item or ITEMS[0], "title": "title"})
        main = pl.col("main_category") if "main_category" in table.schema else None
        cells = {
            "title": title(pl.col("title")),
            "genres": names(as_json(table, genres), main) if genres else pl.lit([], dtype=pl.List(pl.String)),
            "text": prose(as_json(table, text)) if text else pl.lit(""),
        }
        return consumed(table, item or ITEMS[0], cells, ids)


def _columns(table: Records) -> dict[str, Column]:
    """Columns of interactions, whatever the generation calls them."""
    usual = {"user_id": USERS, "item_id": ITEMS, "timestamp": TIMES}
    chosen = {name: choose(table, name, None, options) or options[0] for name, options in usual.items()}
    missing = next((name for name in chosen.values() if name not in table.schema), None)
    if missing is not None:
        known = ", ".join(table.schema)
        raise UserError(f"{table.file} has no '{missing}': its keys are {known}.", "Check that these are the reviews.")
    kinds: dict[str, Kind] = {"user_id": "id", "item_id": "id", "timestamp": "time"}
    columns = {name: Column(chosen[name], kind) for name, kind in kinds.items()}
    rating = choose(table, "rating", None, RATINGS)
    return {**columns, "rating": Column(rating, "number")} if rating else columns


def _is_meta(file: Path) -> bool:
    """Whether a file is named like metadata: meta_Books.json.gz, raw_meta_Books."""
    return "meta" in re.split(r"[^a-z0-9]+", file.name.lower())


def _split_of(file: Path) -> str | None:
    """The split that a file's name ends with: `train` of Books.train.csv.gz."""
    split = Path(bare(file.name)).stem.rpartition(".")[2]
    return split if split in SPLITS else None


def _topic(file: Path) -> str:
    """The category in a file's name: `books` of reviews_Books_5.json.gz, meta_Books.json.gz and Books.train.csv."""
    stem = bare(file.name).partition(".")[0].lower()
    return re.sub(r"^(raw_)?(reviews?|meta|ratings)_|_(5|10|15)$", "", re.sub(r"_(5|10|15)$", "", stem))


def _is_rating(cells: list[str]) -> bool:
    """Whether a first line is no header but a rating: two ids, a number of stars, a time."""
    numbers = [cell.replace(".", "", 1).isdigit() for cell in cells]
    return len(cells) == 4 and numbers[2:] == [True, True] and float(cells[2]) <= 5  # noqa: PLR2004


def _item_first(file: Path) -> bool:
    """Whether items stand before users, as in 2018: the column of which all ids have the length of an item's."""
    text = next(blocks(file, "utf-8")).decode("utf-8", "replace")
    rows = [line.split(",") for line in text.splitlines()[:LOOKED_AT] if line.count(",") == 3]
    first, second = ({len(row[place]) for row in rows} for place in (0, 1))
    return first == {ASIN} and second != {ASIN}


@hookimpl
def recalign_source() -> type[Source]:
    """Return the plugin class to recalign."""
    return Amazon
