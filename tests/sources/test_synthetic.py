import numpy as np
import polars as pl
import pytest

from recalign.errors import UserError
from recalign.plugins import registry


def world(seed=0, **params):
    raw = registry.create("source", "synthetic", params).read(None, seed)
    return raw.items.collect(), raw.events.collect()


def test_sizes_titles_and_genres():
    items, events = world()
    assert (len(items), events["user_id"].n_unique(), len(events)) == (160, 1000, 24_000)
    assert items["title"].n_unique() == 160
    assert items["genres"].list.first().n_unique() == 6
    assert set(items["title"].str.split(" ").list.len()) == {2}
    nouns = items.select(noun=pl.col("title").str.split(" ").list.first(), genre=pl.col("genres").list.first())
    assert nouns.group_by("noun").agg(pl.col("genre").n_unique())["genre"].max() == 1
    words = {word for title in items["title"] for word in title.split()}
    assert len(words) < 50


def test_nobody_consumes_an_item_twice_and_time_goes_on():
    _, events = world()
    assert not events.select("user_id", "item_id").is_duplicated().any()
    assert events["timestamp"].is_sorted()


def test_liking_is_half_of_consumption_and_no_matter_of_popularity():
    items, events = world()
    liked = events.group_by("item_id").agg(like=(pl.col("rating") >= 4).mean(), count=pl.len())
    assert 0.4 < (events["rating"] >= 4).mean() < 0.6
    assert set(events["rating"]) == {1.0, 2.0, 3.0, 4.0, 5.0}
    often = liked.filter(pl.col("count") > 50)
    assert ((often["like"] > 0.8) | (often["like"] < 0.2)).all()
    assert abs(np.corrcoef(liked["like"], liked["count"])[0, 1]) < 0.25


def test_taste_is_concentrated_and_popularity_skewed():
    items, events = world()
    genre = events.join(items.select("item_id", genre=pl.col("genres").list.first()), on="item_id")
    top = genre.group_by("user_id", "genre").len().group_by("user_id").agg(pl.col("len").max() / pl.col("len").sum())
    assert top["len"].mean() > 0.5  # of six genres
    counts = np.sort(events["item_id"].value_counts()["count"].to_numpy())[::-1]
    assert counts[:16].sum() > 2 * counts[80:96].sum()


def test_the_seed_fixes_the_world():
    first, again, other = world(3, users=20), world(3, users=20), world(4, users=20)
    assert first[0].equals(again[0]) and first[1].equals(again[1])
    assert not first[1].equals(other[1])


def test_any_size_has_distinct_titles():
    items, events = world(items=5000, genres=13, users=50, events=30)
    assert items["title"].n_unique() == 5000
    assert items["genres"].list.first().n_unique() == 13
    assert not events.select("user_id", "item_id").is_duplicated().any()


def test_a_user_may_consume_the_whole_catalogue_but_no_more():
    _, events = world(items=12, genres=3, users=5, events=12)
    assert events["item_id"].n_unique() == 12
    with pytest.raises(UserError, match="items=12 is fewer than events=13"):
        world(items=12, genres=3, users=5, events=13)
