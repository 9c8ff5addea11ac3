"""The trial of sources: what loses, repeats or changes interactions is found."""

import polars as pl
import pytest

from recalign.plugins.check.plugin import problems
from recalign.plugins.registry import create
from recalign.sources.movielens import MovieLens
from recalign.sources.table import Table
from recalign.testing.example import example_interactions, example_items


class Changed(MovieLens):
    """A source with a fault."""

    def changed(self, raw):
        """Return what it makes of what was read."""
        raise NotImplementedError

    def read(self, path, seed):
        """Read and change."""
        return self.changed(super().read(path, seed))


def source(change):
    """A source whose events are changed by a function of (frame)."""
    from dataclasses import replace

    class Faulty(Changed):
        """A source with a fault."""

        def changed(self, raw):
            """Change the events."""
            return replace(raw, events=change(raw.events))

    return Faulty()


WITH_EXAMPLE = ["amazon", "goodreads", "movielens", "recbole", "steam", "table", "yelp"]


@pytest.mark.parametrize("name", [*WITH_EXAMPLE, "synthetic"])
def test_the_built_in_sources_that_write_an_example_lose_nothing(name):
    assert problems(create("source", name)) == []


@pytest.mark.parametrize("name", WITH_EXAMPLE)
def test_titles_and_genres_of_an_example_come_back(name, tmp_path):
    source, items = create("source", name), example_items()
    read = source.read(source.write_example(tmp_path, example_interactions(), items), 0)
    found = read.items.select(pl.col("item_id").cast(pl.String), "title", "genres").collect()
    if found.schema["genres"] == pl.String:
        separator = read.genre_separator or "|"
        found = found.with_columns(pl.col("genres").str.split(separator))
    wanted = items.join(example_interactions().select("item_id").unique(), on="item_id", how="semi")
    got = {row["item_id"]: (row["title"], row["genres"]) for row in found.to_dicts()}
    assert {row["item_id"]: (row["title"], row["genres"]) for row in wanted.to_dicts()}.items() <= got.items()


def test_a_source_that_loses_the_last_row_is_found():
    total = example_interactions().height
    (found,) = problems(source(lambda events: events.head(total - 1)))
    assert found.startswith(f"read returns {total - 1} of the {total} interactions that were written")
    assert "the first lost one" in found


def test_a_source_that_drops_low_ratings_is_found():
    kept = int((example_interactions()["rating"] >= 3).sum())
    (found,) = problems(source(lambda events: events.filter(pl.col("rating") >= 3)))
    assert f"returns {kept} of the" in found


def test_a_source_that_reads_rows_twice_is_found():
    total = example_interactions().height
    (found,) = problems(source(lambda events: pl.concat([events, events.head(2)])))
    assert f"returns {total + 2} of the {total}" in found


def test_a_source_that_takes_milliseconds_for_seconds_is_found():
    (found,) = problems(source(lambda events: events.with_columns(pl.col("timestamp") / 1000)))
    assert "interactions that were written" not in found or "were not among them" in found


def test_a_source_without_a_column_is_told_which():
    (found,) = problems(source(lambda events: events.drop("timestamp")))
    assert found == "read returns events without the column timestamp"


def test_changed_ratings_are_found():
    (found,) = problems(source(lambda events: events.with_columns(pl.col("rating") * 2)))
    assert found.startswith("read changes the ratings")


def test_a_source_that_says_nothing_of_its_files_is_checked_by_its_declarations():
    class Silent(Table):
        """It writes no example."""

        def write_example(self, folder, interactions, items):
            """Say nothing."""

    assert problems(Silent()) == []
